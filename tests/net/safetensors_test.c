/* Every test runs in a new folder of its own and reads the file "f" there. */
#include "net/safetensors.h"

#include "handmade.h"

#include <zlib.h>

/* The file is refused with a message that names it and holds these parts; nothing is left. */
static void refused(const char *found, const char *expected) {
    struct safetensors file;
    struct error error = {0};
    if (safetensors_load(&file, "f", &error))
        fail_msg("accepted, where '%s' should be found", found);
    assert_says(&error, STATUS_CHECKPOINT, "f: ", found, expected);
    assert_null(file.tensors);
    assert_null(file.bytes);
}

static struct safetensors accepted(void) {
    struct safetensors file;
    struct error error;
    assert_good(safetensors_load(&file, "f", &error), &error);
    return file;
}

static void assert_accepted(void) {
    struct safetensors file = accepted();
    safetensors_free(&file);
}

#define F32(name, shape, offsets) ENTRY(name, "'F32'", shape, offsets)

/* ---- files that are good ---- */

static uint8_t SOME_BYTES[] = {0x00, 0x00, 0xc0, 0x7f, 0xff, 0xff, 0xff, 0xff, /* NaNs */
                               0x00, 0x00, 0x00, 0x80, 0x01, 0x00, 0x00, 0x00, /* -0, tiny */
                               0x0a, 0x0d, 0x1a, 0x22, 0x7b, 0x7d, 0x20, 0x5c};

static const struct safetensors_tensor TENSORS[] = {
    {.name = "scalar", .dtype = "I64", .data = SOME_BYTES, .size = 8},
    {.name = "a.weight",
     .dtype = "F32",
     .rank = 2,
     .shape = {3, 2},
     .data = SOME_BYTES,
     .size = 24},
    {.name = "none", .dtype = "F32", .rank = 2, .shape = {5, 0}, .data = SOME_BYTES, .size = 0},
    {.name = "\xc3\xa9 \"\\\n",
     .dtype = "U8",
     .rank = 1,
     .shape = {3},
     .data = SOME_BYTES,
     .size = 3},
    {.name = "deep",
     .dtype = "F8_E5M2",
     .rank = SAFETENSORS_RANK,
     .shape = {1, 1, 2, 1, 1, 1, 3, 1},
     .data = SOME_BYTES + 1,
     .size = 6},
};
enum { TENSORS_COUNT = sizeof TENSORS / sizeof *TENSORS };

static void loads_what_was_saved(void **state) {
    struct error error;
    struct metadata metadata = {0};
    (void)state;
    metadata_set(&metadata, "epoch", "%d", 7);
    metadata_set(&metadata, "text", "%s", "quoted \" \\ \n \xc3\xa9 100%");
    metadata_set(&metadata, "empty", "%s", "");
    assert_true(safetensors_save("f", TENSORS, TENSORS_COUNT, &metadata, &error));
    struct safetensors file = accepted();
    assert_int_equal(file.count, TENSORS_COUNT);
    for (int i = 0; i < TENSORS_COUNT; i++) {
        const struct safetensors_tensor *found = &file.tensors[i];
        assert_string_equal(found->name, TENSORS[i].name);
        assert_string_equal(found->dtype, TENSORS[i].dtype);
        assert_int_equal(found->rank, TENSORS[i].rank);
        assert_memory_equal(found->shape, TENSORS[i].shape, sizeof found->shape);
        assert_int_equal(found->size, TENSORS[i].size);
        assert_memory_equal(found->data, TENSORS[i].data, TENSORS[i].size);
        assert_ptr_equal(found->data, file.bytes + found->at);
    }
    assert_int_equal(file.metadata.count, 3);
    for (int i = 0; i < metadata.count; i++)
        assert_string_equal(metadata_get(&file.metadata, metadata.entry[i].key),
                            metadata.entry[i].value);
    safetensors_free(&file);
    safetensors_free(&file); /* twice does no harm */
}

/* The format, byte by byte: any other reader must understand it. The checksums were computed by
 * Python's zlib and xxhash. */
static void saves_the_documented_bytes(void **state) {
    (void)state;
    static const char expected[] =
        "\xd0\0\0\0\0\0\0\0"
        "{\"__metadata__\":{\"format\":\"pt\","
        "\"xxh3_128\":\"dc56f84697ab9819b144d0cba5591827\",\"crc32\":\"a8921926\"},"
        "\"x\":{\"dtype\":\"U8\",\"shape\":[2,1],\"data_offsets\":[0,2]},"
        "\"y\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[2,3]}}"
        "      " /* data begins at a multiple of 8 */
        "ABC";
    static uint8_t bytes[] = "ABC";
    static const struct safetensors_tensor tensors[] = {
        {.name = "x", .dtype = "U8", .rank = 2, .shape = {2, 1}, .data = bytes, .size = 2},
        {.name = "y", .dtype = "U8", .data = bytes + 2, .size = 1},
    };
    struct error error;
    struct metadata metadata = {0};
    char found[sizeof expected] = "";
    metadata_set(&metadata, "format", "pt");
    assert_true(safetensors_save("f", tensors, 2, &metadata, &error));
    assert_int_equal(read_file("f", found, sizeof found), sizeof expected - 1);
    assert_memory_equal(found, expected, sizeof expected);
}

static void saving_reports_what_file_replace_does(void **state) {
    struct error error;
    (void)state;
    assert_false(safetensors_save("no/f", TENSORS, 1, &(struct metadata){0}, &error));
    assert_says(&error, STATUS_FAILURE, "no/f: cannot be written");
}

/* What other writers may do. `names` are the tensors in the order of their data. */
static void accepts_all_that_the_format_allows(void **state) {
    (void)state;
    static const char DATA[] = "abcdefghijklmnopqrstuvwx";
    static const struct {
        const char *header;
        size_t data;
        const char *names;
    } cases[] = {
        {"{}", 0, ""},
        {"{'__metadata__':{}}", 0, ""},
        {"{" F32("a", "[1]", "[0,4]") "}", 4, "a"},
        {" { " F32("a", "[1]", "[0,4]") " } \n\t ", 4, "a"},
        {"{" F32("b", "[1]", "[4,8]") "," F32("a", "[]", "[0,4]") "}", 8, "ab"},
        {"{" F32("c", "[0]", "[4,4]") "," F32("b", "[1]", "[4,8]") "," F32("a", "[1]", "[0,4]") "}",
         8, "acb"},
        {"{" F32("a", "[0,4611686018427387904]", "[0,0]") "}", 0, "a"},
        {"{" F32("a", "[1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "a"},
        {"{" F32("", "[1]", "[0,4]") "}", 4, ""},
        {"{'a':{'shape':[2],'more':[{}],'data_offsets':[0,2],'dtype':'BOOL'}}", 2, "a"},
        {"{" ENTRY("a", "'F16'", "[3]", "[0,6]") "}", 6, "a"},
        {"{" ENTRY("a", "'F64'", "[3]", "[0,24]") "}", 24, "a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *header = cases[i].header;
        const size_t begin = make_safetensors(strlen(header), header, DATA, cases[i].data);
        struct safetensors file = accepted();
        char names[8] = "";
        for (int j = 0; j < file.count; j++) {
            const struct safetensors_tensor *tensor = &file.tensors[j];
            strcat(names, tensor->name);
            assert_true(tensor->at + tensor->size <= begin + cases[i].data);
            assert_memory_equal(tensor->data, DATA + (tensor->at - begin), tensor->size);
        }
        assert_string_equal(names, cases[i].names);
        safetensors_free(&file);
    }
}

static void sorts_many_tensors(void **state) {
    (void)state;
    enum { COUNT = 2000 };
    char *header = malloc(COUNT * 64), *at = header;
    *at++ = '{';
    for (int i = COUNT - 1; i >= 0; i--)
        at += sprintf(at, ENTRY("%d", "'U8'", "[1]", "[%d,%d]") "%s", i, i, i + 1,
                      i == 0 ? "}" : ",");
    make_header(header, COUNT);
    struct safetensors file = accepted();
    assert_int_equal(file.count, COUNT);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(atoi(file.tensors[i].name), i);
    safetensors_free(&file);
    free(header);
}

/* ---- metadata ---- */

/* Metadata of other programs may be longer than there is room for: that much is left out. */
static void metadata_without_room_is_left_out(void **state) {
    (void)state;
    char header[8192], *at = header, value[METADATA_VALUE + 1];
    memset(value, 'v', METADATA_VALUE);
    value[METADATA_VALUE] = '\0'; /* a byte too long */
    at += sprintf(at, "{'__metadata__':{'long':'%s','fits':'%s',", value, value + 1);
    at +=
        sprintf(at, "'k23456789_123456789_123456789_123456789_':''," /* 40 bytes are one too many */
                    "'f23456789_123456789_123456789_123456789':'39 bytes'");
    sprintf(at, "}}");
    make_header(header, 0);
    struct safetensors file = accepted();
    assert_int_equal(file.metadata.count, 2);
    assert_string_equal(metadata_get(&file.metadata, "fits"), value + 1);
    assert_string_equal(metadata_get(&file.metadata, "f23456789_123456789_123456789_123456789"),
                        "39 bytes");
    safetensors_free(&file);

    for (int i = 0; i < 100; i++)
        at += sprintf(at, ",'%d':''", i);
    sprintf(at, "}}");
    make_header(header, 0);
    file = accepted();
    assert_int_equal(file.metadata.count, METADATA_MOST);
    safetensors_free(&file);
}

/* ---- the checksum ---- */

/* Any single bit that flips is noticed, be it in the length, the header, the checksum's own key or
 * digits, or the data. */
static void a_flipped_bit_is_noticed(void **state) {
    (void)state;
    struct error error;
    struct metadata metadata = {0};
    struct safetensors file;
    uint8_t bytes[2048];
    metadata_set(&metadata, "program", "cifar 1");
    metadata_set(&metadata, "key", "text");
    assert_true(safetensors_save("f", TENSORS, TENSORS_COUNT, &metadata, &error));
    const size_t size = read_file("f", bytes, sizeof bytes);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        make_file("f", bytes, size);
        if (safetensors_load(&file, "f", &error))
            fail_msg("bit %zu of byte %zu flipped, and nobody saw it", bit % 8, bit / 8);
        assert_int_equal(error.status, STATUS_CHECKPOINT);
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    make_file("f", bytes, size);
    file = accepted();
    assert_null(metadata_get(&file.metadata, "crc32")); /* is no text about the file */
    assert_null(metadata_get(&file.metadata, "xxh3_128"));
    safetensors_free(&file);
}

/* As versions of before wrote it: without the digest, whose place in the CRC's sum is its absence.
 */
static void a_file_with_the_old_checksum_alone_is_read(void **state) {
    (void)state;
    static const char text[] = "{'__metadata__':{'program':'cifar 0.1.0','crc32':'%08lx'}}";
    char header[128], bytes[128];
    snprintf(header, sizeof header, text, 0UL);
    make_header(header, 0);
    const size_t size = read_file("f", bytes, sizeof bytes);
    snprintf(header, sizeof header, text, crc32_z(0, (const Bytef *)bytes, size));
    make_header(header, 0);
    assert_accepted();
}

static void only_other_programs_write_no_checksum(void **state) {
    (void)state;
    static const struct {
        const char *metadata, *found, *expected;
    } cases[] = {
        {"'program':'cifar 0.1.0'", "the program that wrote it, 'cifar 0.1.0', but no crc32",
         "leave the key 'program' out"},
        {"'crc32':'00000000'", "the crc32 of its 45 bytes is ",
         "its metadata says '00000000': the file is damaged"},
        {"'crc32' : '12345678'", /* not as it is written here */
         "bytes is another, but its metadata says '12345678'", "damaged"},
        {"'crc32':'1'", "metadata says '1'", "damaged"},
        {"'crc32':'0123456789abcdefghijklm'", "metadata says '0123456789abcdefghijklm'", "damaged"},
        {"'xxh3_128':'0123456789abcdef0123456789abcdef'", "the xxh3_128 of its 72 bytes is ",
         "says '0123456789abcdef0123456789abcdef'"},
        {"'xxh3_128':'','program':'cifar 0.1.0'",
         "the program that wrote it, 'cifar 0.1.0', but no crc32", "leave the key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[128];
        snprintf(header, sizeof header, "{'__metadata__':{%s}}", cases[i].metadata);
        make_header(header, 0);
        refused(cases[i].found, cases[i].expected);
    }
    make_header("{'__metadata__':{'format':'pt'}}", 0);
    assert_accepted();
}

/* ---- taking tensors out of a file ---- */

static void takes_what_is_wanted_only(void **state) {
    (void)state;
    struct error error;
    float values[6] = {0};
    struct safetensors_tensor wanted = {.name = "a.weight",
                                        .dtype = "F32",
                                        .rank = 2,
                                        .shape = {3, 2},
                                        .data = values,
                                        .size = sizeof values};
    static const struct {
        const char *name, *dtype;
        int rank;
        int64_t shape[3];
        const char *found;
    } CASES[] = {
        {"b", "F32", 2, {3, 2}, "tensor b is missing among the file's 5 tensors"},
        {"a.weight", "I64", 2, {3, 2}, "its dtype is F32, but I64 is expected"},
        {"a.weight", "F32", 1, {3, 2}, "its shape is [3, 2], but [3] is expected"},
        {"a.weight", "F32", 2, {2, 3}, "its shape is [3, 2], but [2, 3] is expected"},
        {"a.weight", "F32", 3, {3, 2, 1}, "its shape is [3, 2], but [3, 2, 1] is expected"},
    };
    assert_true(safetensors_save("f", TENSORS, TENSORS_COUNT, &(struct metadata){0}, &error));
    struct safetensors file = accepted();
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct safetensors_tensor other = wanted;
        snprintf(other.name, sizeof other.name, "%s", CASES[i].name);
        snprintf(other.dtype, sizeof other.dtype, "%s", CASES[i].dtype);
        other.rank = CASES[i].rank;
        memcpy(other.shape, CASES[i].shape, sizeof CASES[i].shape);
        assert_false(safetensors_take(&file, &other, &error));
        assert_says(&error, STATUS_CHECKPOINT, "f: ", CASES[i].found);
        assert_true(values[1] == 0);
    }
    assert_true(safetensors_take(&file, &wanted, &error));
    assert_memory_equal(values, SOME_BYTES, sizeof values);
    assert_int_equal(wanted.at, safetensors_find(&file, "a.weight")->at);
    assert_null(safetensors_find(&file, "a.weigh"));
    safetensors_free(&file);
}

/* ---- files that are refused ---- */

/* Two tensors in 24 bytes of data; rows break one thing each. */
#define A          F32("a", "[4]", "[0,16]")
#define B          F32("b", "[1,2]", "[16,24]")
#define BOTH(a, b) "{" a "," b "}"

static void damaged_headers_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *header, *found, *expected;
    } cases[] = {
        /* JSON */
        {"{{", "the header is no JSON object: byte 10: string or '}' expected", "is expected"},
        {"{'a", "no JSON object: byte 11: premature end of input", "is expected"},
        {BOTH(A, B) "}", "no JSON object: byte", "end of file expected"},
        {BOTH(A, ""), "no JSON object: byte", "string or '}' expected"},
        {"[]", "no JSON object: byte 8: another kind of value", "is expected"},
        {"'a'", "no JSON object: byte", "'[' or '{' expected"},
        {"12", "no JSON object: byte", "'[' or '{' expected"},
        {"null", "no JSON object: byte", "'[' or '{' expected"},
        {"  ", "no JSON object: byte", "'[' or '{' expected"},
        {BOTH(A, A), "no JSON object: byte", "duplicate object key"},
        {"{'a':{'dtype':'F32','dtype':'F32'}}", "byte 35:", "duplicate object key"},
        {"{'__metadata__':{'k':'1','k':'2'}}", "byte", "duplicate object key"},
        {"{'a\\u0000b':{}}", "no JSON object: byte", "NUL byte in object key"},
        {"{'__metadata__':{'k':'\\u0000'}}", "no JSON object: byte", "\\u0000 is not allowed"},
        {"{'a\\ud800':{}}", "no JSON object: byte", "invalid Unicode"},
        {"{'a\xff':{}}", "no JSON object: byte 11", "unable to decode byte 0xff"},
        {"{'a\xc0\x80':{}}", "no JSON object: byte 11", "unable to decode byte 0xc0"},
        {"{'a\xed\xa0\x80':{}}", "no JSON object: byte", "unable to decode byte 0xed"},
        {"{'a\n':{}}", "no JSON object: byte", "unexpected newline"},
        {"{a:{}}", "no JSON object: byte", "string or '}' expected"},
        {"{" F32("a", "[4]", "[0,16") "]}", "no JSON object: byte", "']' expected"},
        /* metadata */
        {"{'__metadata__':7}", "the header's __metadata__ is wrong", "an object of texts"},
        {"{'__metadata__':null}", "the header's __metadata__ is wrong", "an object of texts"},
        {"{'__metadata__':['k']}", "the header's __metadata__ is wrong", "an object of texts"},
        {"{'__metadata__':{'k':'','n':1}}", "__metadata__ is wrong", "object of texts"},
        {"{'__metadata__':{'k':{}}}", "__metadata__ is wrong", "an object of texts"},
        /* entries */
        {BOTH("'\\u001b[31m\\u007f\\n':7", B), "tensor ?[31m??:", "dtype"},
        {BOTH("'a':[]", B), "tensor a:", "dtype"},
        {BOTH("'a':7", B), "tensor a:", "dtype"},
        {BOTH("'a':null", B), "tensor a:", "dtype"},
        {BOTH("'a':{}", B), "tensor a: dtype is missing", "one of F32, I64"},
        {BOTH("'1234567890123456789012345678901234567890123456789012345678901234':{}", B),
         "a tensor '123456789012345678901234567890123456789012345678901234567890...'",
         "longer than 63 bytes"},
        /* dtypes */
        {BOTH(ENTRY("a", "'F33'", "[4]", "[0,16]"), B), "tensor a: dtype is F33", "one of F32"},
        {BOTH(ENTRY("a", "'f32'", "[4]", "[0,16]"), B), "tensor a: dtype is f32", "one of F32"},
        {BOTH(ENTRY("a", "''", "[4]", "[0,16]"), B), "tensor a: dtype is ;", "one of F32"},
        {BOTH(ENTRY("a", "'F32 and much more of it'", "[4]", "[0,16]"), B),
         "tensor a: dtype is F32 and much more of;", "one of F32"},
        {BOTH(ENTRY("a", "32", "[4]", "[0,16]"), B), "tensor a: dtype is", "one of F32"},
        {BOTH(ENTRY("a", "['F32']", "[4]", "[0,16]"), B), "tensor a: dtype is", "one of F32"},
        {BOTH(ENTRY("a", "'F16'", "[4]", "[0,16]"), B), "tensor a, at byte", "has 16 bytes, but"},
        {BOTH(ENTRY("a", "'I64'", "[4]", "[0,16]"), B), "tensor a, at byte", "dtype I64 need"},
        /* shapes and offsets that are missing or too large; the rest of them below */
        {BOTH("'a':{'dtype':'F32','data_offsets':[0,16]}", B),
         "tensor a: the shape is missing or wrong", "at most 8 whole numbers from 0"},
        {BOTH(F32("a", "[9223372036854775808]", "[0,16]"), B), "byte", "too big integer"},
        {BOTH(F32("a", "[4611686018427387904,4]", "[0,0]"), B), "has 0 bytes",
         "need more than any"},
        {BOTH(F32("a", "[4294967296,4294967296]", "[0,0]"), B), "tensor a, at byte", "0 bytes"},
        {BOTH("'a':{'dtype':'F32','shape':[4]}", B), "tensor a: data_offsets is missing",
         "[begin, end] is expected"},
        {BOTH(F32("a", "[4]", "[0,18446744073709551632]"), B), "byte", "too big integer"},
        /* places */
        {BOTH(A, F32("b", "[1,2]", "[15,23]")), "tensor b begins at byte",
         "neither overlap nor leave gaps"},
        {BOTH(A, F32("b", "[1]", "[20,24]")), "tensor b begins at byte",
         "neither overlap nor leave gaps"},
        {BOTH(A, F32("b", "[0]", "[8,8]")), "tensor b begins at byte",
         "neither overlap nor leave gaps"},
        {BOTH(F32("a", "[6]", "[0,24]"), F32("b", "[6]", "[0,24]")), "begins at byte",
         "neither overlap nor leave gaps"},
        {"{" F32("a", "[5]", "[4,24]") "}", "tensor a begins at byte",
         "neither overlap nor leave gaps"},
        {BOTH(A, F32("b", "[1]", "[16,20]")), "the last tensor ends at byte",
         "something else has been added"},
        {"{}", "the last tensor ends at byte 10, but the file has 34 bytes", "has been added"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_header(cases[i].header, 24);
        refused(cases[i].found, cases[i].expected);
    }
    make_header(BOTH(A, B), 24); /* which all rows come from */
    assert_accepted();
}

/* Many shapes, or many offsets, of the first tensor that are wrong for one reason. */
static void damaged_shapes_and_offsets_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *shapes[10], *offsets[10], *found, *expected;
    } cases[] = {
        {{"4", "{}", "[4.0]", "['4']", "[null]", "[[4]]", "[-4]", "[-1,-4]", "[4,1,1,1,1,1,1,1,1]"},
         {"[0,16]"},
         "tensor a: the shape is missing or wrong",
         "at most 8 whole numbers from 0"},
        {{"[5]", "[3]", "[0]", "[]",
          /* products that are 16 bytes again once they have gone round 2^64 */
          "[4611686018427387908]", "[2,2305843009213693954]"},
         {"[0,16]"},
         "tensor a, at byte",
         "has 16 bytes, but its shape"},
        {{"[4]"},
         {"[16]", "[0,16,16]", "16", "{'0':0,'1':16}", "[0,16.0]", "[0.5,16]", "['0','16']"},
         "tensor a: data_offsets is",
         "[begin, end]"},
        {{"[4]"}, {"[16,0]"}, "tensor a: data_offsets are [16, 0]", "has 24 bytes of data"},
        {{"[4]"}, {"[-16,0]"}, "data_offsets are [-16, 0]", "has 24 bytes of data"},
        {{"[4]"}, {"[-32,-16]"}, "data_offsets are [-32, -16]", "has 24 bytes of data"},
        {{"[4]"}, {"[12,28]"}, "data_offsets are [12, 28]", "has 24 bytes of data"},
        {{"[4]"}, {"[100,116]"}, "data_offsets are [100, 116]", "has 24 bytes of data"},
        {{"[4]"},
         {"[9223372036854775791,9223372036854775807]"},
         "tensor a: data_offsets are [9223372036854775791, 9223372036854775807]",
         "has 24 bytes of data"},
        {{"[4]"},
         {"[-9223372036854775808,9223372036854775807]"},
         "tensor a: data_offsets are [-9223372036854775808, ",
         "has 24 bytes of data"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int j = 0; cases[i].shapes[j] != NULL; j++)
            for (int k = 0; cases[i].offsets[k] != NULL; k++) {
                char header[256];
                snprintf(header, sizeof header, BOTH(F32("a", "%s", "%s"), B), cases[i].shapes[j],
                         cases[i].offsets[k]);
                make_header(header, 24);
                refused(cases[i].found, cases[i].expected);
            }
}

/* The byte that messages name counts from the beginning of the file. */
static void messages_name_the_byte_in_the_file(void **state) {
    (void)state;
    static const char header[] = BOTH(F32("a", "[4]", "[0,16]"), F32("b", "[2]", "[12,20]"));
    const size_t data = make_header(header, 24);
    char begins[64], before[64];
    snprintf(begins, sizeof begins, "tensor b begins at byte %zu,", data + 12);
    snprintf(before, sizeof before, "ends at byte %zu:", data + 16);
    refused(begins, before);
}

static void headers_of_impossible_lengths_are_refused(void **state) {
    (void)state;
    static const char header[] = BOTH(A, B);
    const uint64_t size = strlen(header) + 24; /* after the first 8 bytes */
    const uint64_t lengths[] = {
        0, 1, size + 1, UINT32_MAX, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char found[64], expected[64];
        make_safetensors(lengths[i], header, NULL, 24);
        snprintf(found, sizeof found, "bytes 0 to 7 give a header of %llu bytes",
                 (unsigned long long)lengths[i]);
        snprintf(expected, sizeof expected, "but %zu follow", (size_t)size);
        refused(found, expected);
    }
    for (uint64_t length = 2; length <= size; length++) /* all others, but for the right one */
        if (length != strlen(header)) {
            make_safetensors(length, header, NULL, 24);
            refused("no JSON object: byte", "is expected");
        }
}

/* Deep nesting must not exhaust the stack, wherever it is. */
static void deep_nesting_is_refused(void **state) {
    (void)state;
    enum { DEPTH = 10000 };
    static const char *const before[] = {"", "{'a':", "{'a':{'shape':", "{'__metadata__':{'k':"};
    static const char *const levels[] = {"[", "{'a':"};
    char *header = malloc(DEPTH * 5 + 64);
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 2; j++) {
            strcpy(header, before[i]);
            for (size_t k = strlen(header), n = 0; n < DEPTH; k += strlen(levels[j]), n++)
                strcpy(header + k, levels[j]);
            make_header(header, 0);
            refused("no JSON object: byte", "maximum parsing depth reached");
        }
    free(header);
}

static void every_shorter_and_longer_file_is_refused(void **state) {
    (void)state;
    static const char header[] = BOTH(A, B);
    const off_t whole = (off_t)make_header(header, 24) + 24;
    cut_file("f", whole + 1);
    refused("the last tensor ends at byte", "something else has been added");
    for (off_t size = whole - 1; size >= 0; size--) {
        cut_file("f", size);
        if (size < 8)
            refused("bytes; from 8 to 67108864 are possible", "is expected");
        else if (size < whole - 24)
            refused("bytes 0 to 7 give a header of", "is cut short");
        else
            refused("tensor ", "is cut short");
    }
}

static void other_files_are_refused(void **state) {
    (void)state;
#define TEXT "Once upon a time there was a text file."
    static const struct {
        const char *bytes;
        size_t size;
        const char *found;
    } cases[] = {
        {"", 0, "has 0 bytes; from 8 to"},
        {"\2\0\0\0\0\0\0", 7, "has 7 bytes; from 8 to"},
        {"\2\0\0\0\0\0\0\0", 8, "header of 2 bytes, but 0 follow"},
        {TEXT, sizeof TEXT - 1, "bytes 0 to 7 give a header of"},
        {"PK\3\4\0\0\10\10\0\0\0\0\0\0\0\0", 16, "bytes 0 to 7 give a header of"}, /* torch.save */
        {"\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", 16,
         "bytes 0 to 7 give a header of"}, /* pickle */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_file("f", cases[i].bytes, cases[i].size);
        refused(cases[i].found, "safetensors.torch.save_file writes it, is expected");
    }
    assert_int_equal(unlink("f"), 0);
    refused("cannot be opened", "No such file");
    make_folder("f");
    refused("is a folder", "a regular file is expected");
}

/* JSON takes far more memory and time than its text: no header may be as long as a file. */
static void a_header_that_is_too_long_is_refused(void **state) {
    (void)state;
    static char header[SAFETENSORS_HEADER + 2];
    memset(header, ' ', SAFETENSORS_HEADER + 1);
    memcpy(header, "{}", 2);
    make_header(header, 0);
    refused("bytes 0 to 7 give a header of 131073 bytes", "at most 131072 are read");
    header[SAFETENSORS_HEADER] = '\0';
    make_header(header, 0);
    assert_accepted();
}

static void a_file_that_is_too_large_is_refused(void **state) {
    (void)state;
    make_header("{}", 0);
    cut_file("f", SAFETENSORS_LARGEST + 1);
    refused("has 67108865 bytes; from 8 to 67108864 are possible", "is expected");
    cut_file("f", (off_t)1 << 40);
    refused("has 1099511627776 bytes; from 8 to 67108864 are possible", "is expected");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(loads_what_was_saved),
        IN_SCRATCH(saves_the_documented_bytes),
        IN_SCRATCH(saving_reports_what_file_replace_does),
        IN_SCRATCH(accepts_all_that_the_format_allows),
        IN_SCRATCH(sorts_many_tensors),
        IN_SCRATCH(metadata_without_room_is_left_out),
        IN_SCRATCH(a_flipped_bit_is_noticed),
        IN_SCRATCH(a_file_with_the_old_checksum_alone_is_read),
        IN_SCRATCH(only_other_programs_write_no_checksum),
        IN_SCRATCH(takes_what_is_wanted_only),
        IN_SCRATCH(damaged_headers_are_refused),
        IN_SCRATCH(damaged_shapes_and_offsets_are_refused),
        IN_SCRATCH(messages_name_the_byte_in_the_file),
        IN_SCRATCH(headers_of_impossible_lengths_are_refused),
        IN_SCRATCH(deep_nesting_is_refused),
        IN_SCRATCH(every_shorter_and_longer_file_is_refused),
        IN_SCRATCH(other_files_are_refused),
        IN_SCRATCH(a_header_that_is_too_long_is_refused),
        IN_SCRATCH(a_file_that_is_too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
