/* Preloaded: adds up the bytes of every larger memcpy and memmove of a process and its children.
 * The count is the first eight bytes of a file in $COPIES_DIR, named by the process id. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGE 1024

static uint64_t *total;
static void *(*real)(void *, const void *, size_t); /* memmove serves both. */

__attribute__((constructor)) static void start(void) {
  const char *directory = getenv("COPIES_DIR");
  char name[4096];
  real = dlsym(RTLD_NEXT, "memmove");
  if (directory == NULL) return;
  snprintf(name, sizeof name, "%s/%d", directory, (int)getpid());
  int file = open(name, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof *total) != 0) return;
  void *shared = mmap(NULL, sizeof *total, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (shared != MAP_FAILED) total = shared;
  close(file);
}

static void *counted(void *to, const void *from, size_t size) {
  if (size >= LARGE && total != NULL) __atomic_fetch_add(total, size, __ATOMIC_RELAXED);
  if (real != NULL) return real(to, from, size);
  volatile char *out = to; /* Before the start: byte by byte, from the safe end. */
  const char *in = from;
  if (out < in) for (size_t i = 0; i < size; i++) out[i] = in[i];
  else for (size_t i = size; i-- > 0;) out[i] = in[i];
  return to;
}

void *memcpy(void *to, const void *from, size_t size) { return counted(to, from, size); }
void *memmove(void *to, const void *from, size_t size) { return counted(to, from, size); }
void *__memcpy_chk(void *to, const void *from, size_t size, size_t room) {
  if (size > room) abort();
  return counted(to, from, size);
}
void *__memmove_chk(void *to, const void *from, size_t size, size_t room) {
  if (size > room) abort();
  return counted(to, from, size);
}
