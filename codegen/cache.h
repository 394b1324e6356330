/* cache.h: compiled kernels, and programs made of them (keep.c), on disk, a file each, named by its key. Any number of processes may use one folder. */
#ifndef TT_CACHE_H
#define TT_CACHE_H

#include "../runtime/image.h"
#include "codegen.h"

typedef struct cg_cache {
  char folder[4000];               /* empty: there is no cache (TT_CACHE=0, or no place for one) */
  uint64_t limit;                  /* bytes */
  bool trim;                       /* enough was written to look whether the limit is kept */
  int bad; char first_bad[4400];   /* files that could not be used: what is wrong with the first, and its path */
  char not_written[4400];          /* why nothing can be put there; empty: nothing is wrong */
} cg_cache;

/* TT_CACHE_DIR, else $XDG_CACHE_HOME/tinytorch, else ~/.cache/tinytorch. TT_CACHE_MAX: bytes, or with K, M or G behind (default 256M). */
TT_API void cg_cache_open(cg_cache *c);
/* Of the printed kernel without its name, on that CPU, by this build of the compiler. */
TT_API rt_key cg_cache_key(const char *kernel_text, const cg_cpu *cpu);
/* false: it is not there, or cannot be used. image: malloc'ed. */
TT_API bool cg_cache_get(cg_cache *c, const rt_key *key, rt_image *image);
TT_API void cg_cache_put(cg_cache *c, const rt_key *key, const char *about, const rt_image *image);
/* When enough was written: removes the files used longest ago until the rest is within the limit. */
TT_API void cg_cache_trim(cg_cache *c);
/* false, or what went wrong, as a warning in three parts. */
TT_API bool cg_cache_warning(const cg_cache *c, char *text, size_t size);

typedef struct { const char *path, *name, *about, *wrong; uint64_t bytes; int64_t used; } cg_cache_entry;      /* wrong: NULL when it is whole; used: seconds since 1970 */
/* Every file of the cache, in the order of names; all: also what is left of interrupted writes. false: no memory. */
TT_API bool cg_cache_each(const cg_cache *c, bool all, void (*entry)(void *user, const cg_cache_entry *e), void *user);

#endif
