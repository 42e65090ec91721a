/* A program that maps a file of a mount, shared and writable.
 *
 * mapped FILE BYTES: maps BYTES of FILE from its begin, and takes requests from stdin, a line each:
 *   R offset bytes        answers these bytes of the mapping
 *   W offset bytes        puts the bytes there that follow the line
 *   S offset bytes        msync of the pages around
 *   M 0 0                 opens the file anew and maps it
 * Each answer begins with a line that holds an errno, 0 for done. What lies behind the end of the file must not be asked
 * for: the kernel ends the program then. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *map(const char *path, size_t bytes) {
    int file = open(path, O_RDWR);
    if (file < 0) return MAP_FAILED;
    char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return base;
}

int main(int count, char **words) {
    if (count != 3) return 2;
    size_t all = strtoull(words[2], NULL, 10), page = (size_t)sysconf(_SC_PAGESIZE), offset, bytes;
    char *base = map(words[1], all), *room = malloc(all), line[100], what;
    if (base == MAP_FAILED || room == NULL) return 2;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "%c %zu %zu", &what, &offset, &bytes) != 3) return 2;
        if (offset > all || bytes > all - offset) return 2;
        size_t begin = offset / page * page;
        int number = 0;
        if (what == 'R') {
            memcpy(room, base + offset, bytes);
        } else if (what == 'W') {
            if (fread(room, 1, bytes, stdin) != bytes) return 2;
            memcpy(base + offset, room, bytes);
        } else if (what == 'S') {
            if (msync(base + begin, offset - begin + bytes, MS_SYNC) != 0) number = errno;
        } else {
            if (munmap(base, all) != 0) return 2;
            base = map(words[1], all);
            if (base == MAP_FAILED) return 2;
        }
        printf("%d\n", number);
        if (what == 'R') fwrite(room, 1, bytes, stdout);
        fflush(stdout);
    }
    return 0;
}
