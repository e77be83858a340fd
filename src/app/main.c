/* The program: finds out what is wanted, does it, and turns an error into a message and an exit
 * status. */
#include "app/commands.h"
#include "base/memory.h"
#include "device/device.h"
#include "net/onnx.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <locale.h>
#include <png.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void print_version(void) {
    printf("cifar %s\n", CIFAR_VERSION);
    for (int i = 0; device_name(i) != NULL; i++) {
        char text[512] = "not built in";
        struct error error;
        const struct device_ops *device = device_find(device_name(i), &error);
        if (device != NULL)
            device->describe(NULL, text, sizeof text);
        printf("device %s: %s\n", device_name(i), text);
    }
    printf("libpng %s, jansson %s, ONNX: %s\n", png_get_libpng_ver(NULL), jansson_version_str(),
           onnx_library());
}

/* GNU OpenMP's threads spin for long while they wait for each other. That wins nothing measurable
 * here and loses much where other programs run: on two cores with two busy neighbours, training
 * took 1.5 times as long. OpenMP reads its settings before main() begins, so the program sets a
 * short spin and starts itself again, once, unless the user has set something. */
static void start_with_patient_threads(char **argv) {
    char self[PATH_MAX] = "";
    if (getenv("GOMP_SPINCOUNT") != NULL || getenv("OMP_WAIT_POLICY") != NULL)
        return;
    /* started as an argument of the dynamic loader, this process is the loader */
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0 || strstr(self, "/ld-") != NULL)
        return;
    setenv("GOMP_SPINCOUNT", "1000", 1);
    execv("/proc/self/exe", argv); /* where this fails, all goes on, only less patiently */
}

/* A file that is opened takes the lowest free number: with standard output closed, a log would be
 * it, and text for the user would land there. Opened for reading, so that writing still fails. */
static void occupy_standard_files(void) {
    int opened;
    do
        opened = open("/dev/null", O_RDONLY);
    while (opened >= 0 && opened <= STDERR_FILENO);
    if (opened >= 0)
        close(opened);
}

static bool run(const struct settings *settings, char **argv, struct error *error) {
    if (settings->help) {
        settings_help(settings);
        return true;
    }
    if (settings->version) {
        print_version();
        return true;
    }
    if (settings->command & ~(COMMAND_EXPORT | COMMAND_SYNTH | COMMAND_VERIFY))
        start_with_patient_threads(argv);
    prctl(PR_SET_NAME, settings->program); /* for ps and top, which would show "exe" */
    switch (settings->command) {
    case COMMAND_TRAIN:
        return command_train(settings, error);
    case COMMAND_TEST:
        return command_test(settings, error);
    case COMMAND_CLASSES:
        return command_classes(settings, error);
    case COMMAND_PREDICT:
        return command_predict(settings, error);
    case COMMAND_EXPORT:
        return command_export(settings, error);
    case COMMAND_IMPORT:
        return command_import(settings, error);
    case COMMAND_SYNTH:
        return command_synth(settings, error);
    case COMMAND_VERIFY:
        return command_verify(settings, error);
    }
    return error_set(error, STATUS_FAILURE, "no command was chosen");
}

int main(int argc, char **argv) {
    struct settings settings;
    struct error error;
    occupy_standard_files();
    json_set_alloc_funcs(memory_take, free); /* so that no JSON is left out for want of memory */
    signal(SIGXFSZ, SIG_IGN);         /* a write beyond a limit fails like one on a full disk */
    setlocale(LC_CTYPE, "");          /* whether bars can be drawn in UTF-8 */
    setvbuf(stdout, NULL, _IOLBF, 0); /* whoever reads a pipe sees each line at once */
    bool good = settings_parse(&settings, argc, argv, &error) && run(&settings, argv, &error);
    if (good && (fflush(stdout) != 0 || ferror(stdout)))
        good = error_set(&error, STATUS_FAILURE, "standard output cannot be written: %s",
                         strerror(errno));
    if (good)
        return STATUS_OK;
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", settings.program, error.text);
    if (error.status == STATUS_USAGE)
        fprintf(stderr, "%s: '%s --help' shows what is possible\n", settings.program,
                settings.program);
    return (int)error.status;
}
