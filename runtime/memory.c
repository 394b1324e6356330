/* memory.c: blocks for tensors and arenas: zeroed, 64-byte aligned. A block of 256 KiB or more is mapped on its own: its pages are zeros until something
 * else is written, at no cost where that never happens or comes later (an optimizer's state). One of a megabyte or more begins on a boundary of 2 MiB, so
 * that the system may back it by huge pages: a matrix then costs a few TLB entries instead of thousands. */
#define _GNU_SOURCE
#include "runtime.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGN 64
#define HUGE_PAGE ((size_t)2 << 20)
#define MAPPED ((size_t)256 << 10)
#define LARGE ((size_t)1 << 20)

/* Sanitizers watch the ends of malloc'ed blocks only. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define WATCHED 1
#endif
#endif
#ifndef WATCHED
#define WATCHED 0
#endif

static bool is_mapped(size_t bytes) { return !WATCHED && bytes >= MAPPED; }

void *rt_alloc(size_t bytes) {
  if (bytes > (WATCHED ? (size_t)1 << 38 : PTRDIFF_MAX - 2 * HUGE_PAGE)) return NULL;   /* a sanitizer ends the process when it is asked for more */
  if (!is_mapped(bytes)) {
    void *p = NULL;
    if (posix_memalign(&p, ALIGN, bytes ? bytes : 1)) return NULL;
    return memset(p, 0, bytes);
  }
  size_t length = (bytes + 4095) & ~(size_t)4095, whole = bytes < LARGE ? length : length + HUGE_PAGE;
  char *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
  if (bytes < LARGE) return p;
  char *start = (char *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
  if (start > p) munmap(p, (size_t)(start - p));
  if (start + length < p + whole) munmap(start + length, (size_t)(p + whole - start) - length);
  if (bytes >= HUGE_PAGE) madvise(start, length, MADV_HUGEPAGE);
  return start;
}

void rt_free(void *p, size_t bytes) {
  if (!p) return;
  if (is_mapped(bytes)) munmap(p, (bytes + 4095) & ~(size_t)4095);
  else free(p);
}
