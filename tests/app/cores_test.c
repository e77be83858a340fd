/* Quotas of control groups, in trees of files like the kernel's. */
#include "app/cores.h"

#include "scratch.h"

#include <sched.h>

static int64_t affinity(void) {
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    return CPU_COUNT(&set);
}

/* A file below the scratch folder, with its folders. */
static void put(const char *path, const char *text) {
    char command[4096];
    snprintf(command, sizeof command, "mkdir -p \"$(dirname '%s')\"", path);
    assert_int_equal(system(command), 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

static void assert_cores(int64_t expected) {
    assert_int_equal(cores_count("."), expected < affinity() ? expected : affinity());
}

enum { ALL = INT32_MAX };

#define V2 "sys/fs/cgroup/"
#define V1 "sys/fs/cgroup/cpu,cpuacct/"

static void without_groups_all_cores_count(void **state) {
    (void)state;
    assert_int_equal(cores_count("nowhere"), affinity());
    assert_cores(ALL);
    assert_true(cores_count("") >= 1 && cores_count("") <= affinity());
}

static void version_2(void **state) {
    (void)state;
    put("proc/self/cgroup", "0::/user.slice/job\n");
    put(V2 "user.slice/job/cpu.max", "max 100000\n");
    assert_cores(ALL);
    put(V2 "user.slice/job/cpu.max", "150000 100000\n");
    assert_cores(2);
    put(V2 "user.slice/job/cpu.max", "100000 100000"); /* without a line feed */
    assert_cores(1);
    put(V2 "user.slice/job/cpu.max", "1000 100000\n");
    assert_cores(1);
    put(V2 "user.slice/job/cpu.max", "1000000 100000\n");
    assert_cores(10);
}

static void a_group_above_counts(void **state) {
    (void)state;
    put("proc/self/cgroup", "0::/a/b/c\n");
    put(V2 "a/b/c/cpu.max", "max 100000\n");
    put(V2 "a/b/cpu.max", "300000 100000\n");
    put(V2 "a/cpu.max", "50000 50000\n");
    assert_cores(1);
    put(V2 "a/cpu.max", "400000 50000\n");
    assert_cores(3);
    put(V2 "a/b/cpu.max", "max 100000\n");
    put(V2 "cpu.max", "20000 20000\n");
    assert_cores(1);
}

static void version_1(void **state) {
    (void)state;
    put("proc/self/cgroup",
        "12:memory:/other\n4:cpu,cpuacct:/job/1\n1:name=systemd:/job/1\n0::/\n");
    put(V1 "job/1/cpu.cfs_quota_us", "-1\n");
    put(V1 "job/1/cpu.cfs_period_us", "100000\n");
    assert_cores(ALL);
    put(V1 "job/1/cpu.cfs_quota_us", "100001\n");
    assert_cores(2);
    put(V1 "job/1/cpu.cfs_quota_us", "100000\n");
    assert_cores(1);
    put(V1 "job/1/cpu.cfs_quota_us", "-1\n");
    put(V1 "job/cpu.cfs_quota_us", "20000\n");
    put(V1 "job/cpu.cfs_period_us", "100000\n");
    assert_cores(1);
}

static void mounted_by_another_name(void **state) {
    (void)state;
    put("proc/self/cgroup", "3:cpuacct,cpu:/job\n2:cpuset:/job\n");
    put("sys/fs/cgroup/cpuset/job/cpu.max", "1 1\n"); /* nobody's */
    assert_cores(ALL);
    put("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "100000\n");
    put("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
    assert_cores(1);
}

static void both_versions_at_once(void **state) {
    (void)state;
    put("proc/self/cgroup", "2:cpuset:/\n0::/job\n");
    put("sys/fs/cgroup/unified/job/cpu.max", "10000 100000\n");
    assert_cores(1);
}

/* Its path is the one outside; below the mount there is only its own group. */
static void in_a_container(void **state) {
    (void)state;
    put("proc/self/cgroup", "0::/system.slice/docker-0123.scope\n");
    put(V2 "cpu.max", "100000 100000\n");
    assert_cores(1);
    put("proc/self/cgroup", "5:cpu,cpuacct:/docker/0123\n");
    put(V1 "cpu.cfs_quota_us", "50000\n");
    put(V1 "cpu.cfs_period_us", "100000\n");
    put(V2 "cpu.max", "max 100000\n");
    assert_cores(1);
    put("proc/self/cgroup", "0::/../../elsewhere\n");
    put(V2 "cpu.max", "100000 100000\n");
    assert_cores(1);
}

static void what_makes_no_sense_is_no_quota(void **state) {
    (void)state;
    static const char *const texts[] = {"",          "\n",
                                        "max",       "100000",
                                        "100000 0",  "0 100000",
                                        "-5 100000", "100000 -5",
                                        "nan nan",   "inf inf",
                                        "inf 1",     "1e308 1e-308",
                                        "x y",       "99999999999999999999999999 1"};
    put("proc/self/cgroup", "0::/job\n");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put(V2 "job/cpu.max", texts[i]);
        assert_cores(ALL);
    }
    put(V2 "job/cpu.max", "1e-308 1e308"); /* too little for a double */
    assert_true(cores_count(".") >= 1);

    char endless[20000];
    memset(endless, '/', sizeof endless);
    memcpy(endless, "0::", 3);
    endless[sizeof endless - 1] = '\0';
    const char *const lines[] = {
        "", ":", "::", "0:", "0::", "0::job", "no colon\n", "\n\n", endless};
    put(V2 "job/cpu.max", "max 100000\n");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        put("proc/self/cgroup", lines[i]);
        assert_cores(ALL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(without_groups_all_cores_count),
        IN_SCRATCH(version_2),
        IN_SCRATCH(a_group_above_counts),
        IN_SCRATCH(version_1),
        IN_SCRATCH(mounted_by_another_name),
        IN_SCRATCH(both_versions_at_once),
        IN_SCRATCH(in_a_container),
        IN_SCRATCH(what_makes_no_sense_is_no_quota),
    };
    return cmocka_run_group_tests_name("cores", tests, NULL, NULL);
}
