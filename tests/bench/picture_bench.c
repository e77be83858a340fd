/* Not a test: how fast pictures are read, decoded and resized, without a network.
 *
 *     picture_bench THREADS PICTURE|FOLDER...     prints how many, and the seconds */
#include "app/pictures.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words) {
    struct picture_reader reader;
    if (count < 3)
        return 2;
    const double began = clock_seconds();
    picture_reader_init(&reader, words + 2, count - 2, PICTURE_CENTER, atoi(words[1]));
    while (picture_reader_next(&reader))
        ;
    printf("%lld %.4f\n", (long long)reader.good, clock_seconds() - began);
    picture_reader_free(&reader);
    return 0;
}
