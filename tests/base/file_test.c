/* Every test runs in a new folder of its own, and as "nobody" where it was started as root: root
 * may do anything, so no refusal could be tested, and a mistake could replace /dev/null. */
#include "base/file.h"

#include "scratch.h"

#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void assert_holds(const char *path, const char *text) {
    char found[256] = "";
    read_file(path, found, sizeof found - 1);
    assert_string_equal(found, text);
}

static void assert_absent(const char *path) {
    struct stat info;
    assert_int_equal(lstat(path, &info), -1);
}

static struct stat info_of(const char *path) {
    struct stat info;
    assert_int_equal(lstat(path, &info), 0);
    return info;
}

/* The pattern matches as many names, hidden ones included. */
static void assert_matches(const char *pattern, size_t count) {
    glob_t found;
    assert_int_equal(glob(pattern, GLOB_PERIOD, NULL, &found), count == 0 ? GLOB_NOMATCH : 0);
    if (count > 0)
        assert_int_equal(found.gl_pathc, count);
    globfree(&found);
}

/* ---- reading ---- */

static void reads_all_bytes(void **state) {
    (void)state;
    static const struct {
        const char *path, *text;
    } cases[] = {{"some", "some text"}, {"none", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct file file;
        struct error error;
        uint8_t bytes[16] = "0123456789abcde";
        const size_t size = strlen(cases[i].text);
        make_text(cases[i].path, cases[i].text);
        assert_true(file_open(&file, cases[i].path, STATUS_DATA, &error));
        assert_int_equal(file.size, size);
        assert_true(file_read(&file, bytes, size, &error));
        assert_memory_equal(bytes, cases[i].text, size);
        assert_int_equal(bytes[size], "0123456789abcde"[size]); /* no byte more */
        file_close(&file);
    }
}

static void refuse_to_open(const char *path, const char *says) {
    struct file file;
    struct error error;
    assert_false(file_open(&file, path, STATUS_CHECKPOINT, &error));
    assert_says(&error, STATUS_CHECKPOINT, says);
}

static void open_refuses(void **state) {
    (void)state;
    static const struct {
        const char *path, *says;
    } cases[] = {
        {"missing", "missing: cannot be opened: No such file"},
        {"no/folder", "no/folder: cannot be opened: No such file"},
        {"file/below", "file/below: cannot be opened: Not a directory"},
        {"folder", "folder: is a folder; a regular file is expected"},
        {"pipe", "pipe: is a pipe; a regular file is expected"},
        {"/dev/null", "/dev/null: is a device; a regular file is expected"},
        {"loop", "loop: cannot be opened: Too many levels"},
        {"", ": cannot be opened: No such file"},
    };
    make_text("file", "text");
    make_folder("folder");
    make_pipe("pipe");
    make_link("loop", "loop");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse_to_open(cases[i].path, cases[i].says);
    need_no_root();
    make_text("secret", "text");
    chmod("secret", 0);
    refuse_to_open("secret", "secret: cannot be opened: Permission denied");
}

static void open_keeps_no_descriptor_of_what_it_refuses(void **state) {
    (void)state;
    make_folder("folder");
    const int before = dup(0);
    close(before);
    refuse_to_open("folder", "folder: is a folder");
    const int after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

static void read_notices_a_file_that_shrank(void **state) {
    struct file file;
    struct error error;
    uint8_t bytes[10];
    (void)state;
    make_text("file", "0123456789");
    assert_true(file_open(&file, "file", STATUS_DATA, &error));
    cut_file("file", 3);
    assert_false(file_read(&file, bytes, sizeof bytes, &error));
    assert_says(&error, STATUS_DATA, "file: ended at byte 3, but had 10 bytes");
    file_close(&file);
}

static void read_reports_what_the_system_says(void **state) {
    struct error error;
    uint8_t byte;
    (void)state;
    const struct file file = {open(".", O_RDONLY), "name", 1, STATUS_CHECKPOINT};
    assert_false(file_read(&file, &byte, 1, &error));
    assert_says(&error, STATUS_CHECKPOINT, "name: reading failed at byte 0: Is a directory");
    close(file.descriptor);
}

/* ---- writing ---- */

static void replace(const char *path, const char *text) {
    struct error error;
    assert_good(file_replace(path, text, strlen(text), &error), &error);
    assert_holds(path, text);
    assert_matches("*.tmp", 0);
    assert_matches("*/*.tmp", 0);
}

static void replace_writes_new_and_old_files(void **state) {
    char absolute[128];
    (void)state;
    replace("new", "first");
    replace("new", "second, longer");
    replace("new", "3rd");
    replace("new", "");
    make_folder("folder");
    replace("folder/file", "below");
    replace("./folder/../folder/file", "by another name");
    assert_holds("folder/file", "by another name");
    snprintf(absolute, sizeof absolute, "%s/absolute", scratch);
    replace(absolute, "text");
    assert_matches("[!.]*", 3); /* absolute, folder, new */
}

/* Whoever has the old file open keeps on reading it whole. */
static void replace_never_changes_the_old_file(void **state) {
    char found[8] = "";
    (void)state;
    make_text("file", "old");
    const int reader = open("file", O_RDONLY);
    replace("file", "new");
    assert_int_equal(read(reader, found, sizeof found), 3);
    assert_string_equal(found, "old");
    close(reader);
}

static void replace_follows_a_link(void **state) {
    (void)state;
    make_folder("folder");
    make_text("folder/target", "old");
    make_link("folder/target", "link");
    make_link("link", "second");
    replace("second", "new");
    assert_holds("folder/target", "new");
    assert_true(S_ISLNK(info_of("link").st_mode));
    assert_true(S_ISLNK(info_of("second").st_mode));
}

/* Both functions refuse what cannot be replaced, leave it as it was and leave nothing behind. The
 * message begins and ends so. */
static void refuse(const char *path, const char *begins, const char *ends) {
    struct error replacing, checking;
    struct stat before, after;
    const bool there = lstat(path, &before) == 0;
    assert_false(file_replace(path, "text", 4, &replacing));
    assert_false(file_check_replaceable(path, &checking));
    assert_says(&replacing, STATUS_FAILURE, begins, ends);
    assert_says(&checking, STATUS_FAILURE, replacing.text); /* known beforehand as well */
    assert_matches("*.tmp", 0);
    assert_matches("*/*.tmp", 0);
    assert_int_equal(lstat(path, &after) == 0, there);
    if (there) {
        assert_int_equal(after.st_ino, before.st_ino);
        assert_int_equal(after.st_mode, before.st_mode);
    }
}

static void targets_that_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *path, *begins, *ends;
    } cases[] = {
        {"", "", "an empty name"},
        {"folder", "folder: ", "is a folder and will not be replaced"},
        {"folder/", "folder/: ", "is a folder and will not be replaced"},
        {"to_folder", "to_folder: ", "is a folder and will not be replaced"},
        {".", ".: ", "is a folder"},
        {"pipe", "pipe: ", "is a pipe and will not be replaced"},
        {"missing/file", "missing/file: cannot be written: creating missing/file.",
         "beside it failed: No such file or directory"},
        {"missing/", "missing/: ", "failed: No such file or directory"},
        {"file/below", "file/below: cannot be written: creating file/below.",
         "beside it failed: Not a directory"},
        {"file/", "file/: ", "failed: Not a directory"},
        {"nowhere", "nowhere: ", "is a link that leads to no file: No such file or directory"},
        {"loop", "loop: ", "is a link that leads to no file: Too many levels"},
    };
    make_text("file", "old");
    make_folder("folder");
    make_pipe("pipe");
    make_link("folder", "to_folder");
    make_link("missing", "nowhere");
    make_link("loop", "loop");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].path, cases[i].begins, cases[i].ends);
    assert_holds("file", "old");
}

static void devices_are_refused(void **state) {
    (void)state;
    need_no_root(); /* lest a broken file_replace() should take the machine's /dev/null away */
    make_link("/dev/null", "to_null");
    refuse("/dev/null", "/dev/null: ", "is a device and will not be replaced");
    refuse("to_null", "to_null: ", "is a device and will not be replaced");
    assert_true(S_ISCHR(info_of("/dev/null").st_mode));
}

static void long_names_are_refused(void **state) {
    char name[2 * PATH_MAX];
    (void)state;
    memset(name, 'n', sizeof name);
    name[300] = '\0'; /* too long for a folder's entry */
    refuse(name, "nnn", "beside it failed: File name too long");
    name[300] = 'n';
    name[PATH_MAX] = '\0'; /* too long for any path */
    refuse(name, "nnn", "the name is longer than 4095 bytes");
    name[PATH_MAX] = 'n';
    name[sizeof name - 1] = '\0';
    refuse(name, "nnn", "the name is longer than 4095 bytes");
}

static void folders_without_permission_are_refused(void **state) {
    (void)state;
    need_no_root();
    make_folder("closed");
    make_text("closed/file", "old");
    chmod("closed", 0555);
    refuse("closed/file", "closed/file: cannot be written", "beside it failed: Permission denied");
    refuse("closed/new", "closed/new: cannot be written", "beside it failed: Permission denied");
    assert_holds("closed/file", "old");
}

/* Replaces both files in a process that may write 4096 bytes, with SIGXFSZ ignored, which plays a
 * full disk, or not, so that it is killed while writing. Answers how it ended: by exit, 0. */
static int replace_with_little_room(void (*at_the_limit)(int)) {
    static uint8_t bytes[10000];
    static const struct rlimit small = {4096, RLIM_INFINITY};
    static const char says[] = "file: could not be written (10000 bytes): File too large";
    int status;
    make_text("file", "old");
    fflush(NULL);
    const pid_t writer = fork();
    if (writer == 0) {
        struct error first, second;
        signal(SIGXFSZ, at_the_limit);
        prctl(PR_SET_DUMPABLE, 0);
        setrlimit(RLIMIT_FSIZE, &small);
        _exit(file_replace("file", bytes, sizeof bytes, &first) ||
              file_replace("new", bytes, sizeof bytes, &second) || first.status != STATUS_FAILURE ||
              strstr(first.text, says) != first.text ||
              strstr(first.text, "nothing has been changed") == NULL);
    }
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_holds("file", "old");
    assert_absent("new");
    return status;
}

static void failing_write_leaves_the_old_file(void **state) {
    (void)state;
    assert_int_equal(replace_with_little_room(SIG_IGN), 0);
    assert_matches("*.tmp", 0);
}

/* Half a temporary file may lie there. */
static void a_killed_writer_leaves_the_old_file(void **state) {
    (void)state;
    assert_true(WIFSIGNALED(replace_with_little_room(SIG_DFL)));
    assert_matches("file.*.tmp", 1);
}

/* Two files keep finding each other, wherever they are moved together or seen from. */
static void files_name_each_other(void **state) {
    char here[PATH_MAX], name[PATH_MAX], path[PATH_MAX], absolute[2 * PATH_MAX];
    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    make_folder("a");
    make_folder("a/b");
    make_folder("ab");
    make_link("a/b", "link");
    snprintf(absolute, sizeof absolute, "%s/model", here);
    const struct {
        const char *path, *beside, *name, *again;
    } CASES[] = {
        {"model", "last", "model", "model"},
        {"a/model", "last", "a/model", "a/model"},
        {"../model", "last", "../model", "../model"},
        {"a/model", "a/last", "model", "a/model"},
        {"a/b/model", "a/last", "b/model", "a/b/model"},
        {"model", "a/last", "../model", "model"},
        {"model", "a/b/last", "../../model", "model"},
        {"a/model", "a/b/last", "../model", "a/model"},
        {"a/model", "ab/last", "../a/model", "a/model"},
        {"/x/model", "/x/last", "model", "/x/model"},
        {"/x/y/model", "/x/last", "y/model", "/x/y/model"},
        {"a/", "a/last", ".", "a/."},
        {"../model", "a/last", "../../model", "../model"},
        {"/x/model", "a/last", "/x/model", "/x/model"},
        {"model", "link/last", absolute, absolute}, /* up from there does not lead here */
        {"model", "/tmp/last", absolute, absolute},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        assert_true(file_name_beside(name, sizeof name, CASES[i].path, CASES[i].beside));
        assert_string_equal(name, CASES[i].name);
        assert_true(file_path_beside(path, sizeof path, name, CASES[i].beside));
        assert_string_equal(path, CASES[i].again);
    }
    make_text("a/last", "");
    make_link("a/last", "to_last");
    snprintf(absolute, sizeof absolute, "%s/a/model", here);
    assert_true(file_path_beside(path, sizeof path, "model", "to_last"));
    assert_string_equal(path, absolute);
    assert_true(file_name_beside(name, sizeof name, path, "to_last"));
    assert_string_equal(name, "model");
    assert_int_equal(chdir("a"), 0); /* both are up from here */
    assert_true(file_name_beside(name, sizeof name, "../model", "../ab/last"));
    assert_string_equal(name, "../model");
    assert_true(file_path_beside(path, sizeof path, name, "../ab/last"));
    assert_string_equal(path, "../model");
    assert_false(file_name_beside(name, 5, "model", "last"));
    assert_true(file_name_beside(name, 6, "model", "last"));
    assert_false(file_path_beside(path, 7, "model", "a/last"));
    assert_true(file_path_beside(path, 8, "model", "a/last"));
}

/* What killed writers of this file left is removed by the next one's first check; what only looks
 * alike, or is still being written, wherever its writer lives, is not. */
static void leftovers_of_the_dead_are_removed(void **state) {
    static const char *const KEPT[] = {"file",
                                       "file.tmp",
                                       "file.20240101.tmp",
                                       "file.cifar-.tmp",
                                       "file.cifar-x1.tmp",
                                       "file.cifar-1x.tmp",
                                       "file.cifar-1.tmp2",
                                       "file.cifar-.1.tmp",
                                       "afile.cifar-1.tmp",
                                       "file2.cifar-1.tmp",
                                       "file.cifar-999999998.tmp"};
    struct error error;
    char path[64];
    (void)state;
    make_folder("folder");
    for (int in_folder = 0; in_folder < 2; in_folder++) {
        const char *folder = in_folder ? "folder/" : "";
        for (size_t i = 0; i < sizeof KEPT / sizeof *KEPT; i++) {
            snprintf(path, sizeof path, "%s%s", folder, KEPT[i]);
            make_text(path, "kept");
        }
        const int writer = open(path, O_WRONLY | O_CLOEXEC); /* of the last */
        assert_int_equal(flock(writer, LOCK_EX), 0);
        snprintf(path, sizeof path, "%sfile.cifar-%ld.tmp", folder, (long)getppid());
        make_text(path, "left"); /* a process has the number: in another container, another one */
        const char *file = in_folder ? "folder/file" : "file";
        assert_true(file_check_replaceable(file, &error));
        file_clean(file);
        assert_absent(path);
        for (size_t i = 0; i < sizeof KEPT / sizeof *KEPT; i++) {
            snprintf(path, sizeof path, "%s%s", folder, KEPT[i]);
            assert_holds(path, "kept");
        }
        close(writer);
    }
}

/* Whoever can guess the temporary file's name must not have another file overwritten. */
static void a_link_in_place_of_the_temporary_file_is_not_followed(void **state) {
    char name[128];
    struct error error;
    (void)state;
    make_text("precious", "text");
    snprintf(name, sizeof name, "%s/new.cifar-%ld.tmp", scratch, (long)getpid());
    make_link("precious", name);
    assert_true(file_check_replaceable("new", &error));
    assert_holds("precious", "text");
    make_link("precious", name);
    replace("new", "other");
    assert_holds("precious", "text");
}

/* A folder that may be written but not read cannot be synced: no reason to fail. */
static void replaces_in_a_folder_that_may_not_be_read(void **state) {
    struct error error;
    (void)state;
    make_folder("folder");
    chmod("folder", 0300);
    assert_true(file_replace("folder/file", "text", 4, &error));
    assert_holds("folder/file", "text");
}

static void permissions_stay(void **state) {
    (void)state;
    make_text("file", "old");
    assert_int_equal(chmod("file", 0640), 0);
    replace("file", "new");
    assert_int_equal(info_of("file").st_mode & 0777, 0640);
}

static void same_files_are_told(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"file", "file", true},
        {"file", "./file", true},
        {"file", "other", false},
        {"file", "folder/../file", true},
        {"file", "link", true},
        {"new", "./new", true}, /* neither is there yet */
        {"new", "folder/new", false},
        {"new", "other_new", false},
        {"nowhere/a", "nowhere/b", false},
    };
    make_text("file", "text");
    make_text("other", "text");
    make_folder("folder");
    make_link("file", "link");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(file_same(cases[i].a, cases[i].b), cases[i].same);
}

static void check_touches_nothing(void **state) {
    struct error error;
    (void)state;
    make_text("file", "old");
    chmod("file", 0640);
    const struct stat before = info_of("file");
    assert_true(file_check_replaceable("file", &error));
    const struct stat after = info_of("file");
    assert_int_equal(after.st_ino, before.st_ino);
    assert_int_equal(after.st_mode, before.st_mode);
    assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    assert_holds("file", "old");
    assert_true(file_check_replaceable("new", &error));
    assert_absent("new");
    assert_matches("[!.]*", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(reads_all_bytes),
        IN_SCRATCH(open_refuses),
        IN_SCRATCH(open_keeps_no_descriptor_of_what_it_refuses),
        IN_SCRATCH(read_notices_a_file_that_shrank),
        IN_SCRATCH(read_reports_what_the_system_says),
        IN_SCRATCH(replace_writes_new_and_old_files),
        IN_SCRATCH(replace_never_changes_the_old_file),
        IN_SCRATCH(replace_follows_a_link),
        IN_SCRATCH(targets_that_are_refused),
        IN_SCRATCH(devices_are_refused),
        IN_SCRATCH(long_names_are_refused),
        IN_SCRATCH(folders_without_permission_are_refused),
        IN_SCRATCH(failing_write_leaves_the_old_file),
        IN_SCRATCH(a_killed_writer_leaves_the_old_file),
        IN_SCRATCH(leftovers_of_the_dead_are_removed),
        IN_SCRATCH(files_name_each_other),
        IN_SCRATCH(a_link_in_place_of_the_temporary_file_is_not_followed),
        IN_SCRATCH(replaces_in_a_folder_that_may_not_be_read),
        IN_SCRATCH(same_files_are_told),
        IN_SCRATCH(permissions_stay),
        IN_SCRATCH(check_touches_nothing),
    };
    leave_root();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
