/* code.c: kernels to machine code in memory. LLVM is opened at the first kernel that the cache does not have. There is one way to run code, fresh or
 * not: an image, loaded by runtime/image.c. TT_PERF=1 in the environment writes the map file that perf reads. */
#include "code.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"

typedef struct {
  const cg_kernel *kernels; int n;
  const cg_options *o;
  const cg_cpu *cpu;
  cg_cache own, *cache;
  rt_key *keys;
  rt_image *images;
  lp_kernel **missing; int *number; int n_missing;       /* kernels that LLVM has to compile */
  cg_compiled *compiled;
  int done;
} job;

static void tell(job *j, int i, const double ms[3], bool cached) {
  j->done++;
  if (j->o->kernel) j->o->kernel(j->o->user, j->kernels[i].loops->name, j->done, j->n, ms, cached);
}

static bool stopped(const job *j) { return j->o->stop && *j->o->stop; }

/* One is compiled: it goes to the cache at once, so that an interrupted compilation is not lost. */
static bool keep(void *user, int m) {
  job *j = user;
  int i = j->number[m];
  const cg_compiled *c = &j->compiled[m];
  char about[RT_IMAGE_ABOUT];
  snprintf(about, sizeof about, "%.40s %s", j->kernels[i].loops->name, j->cpu->name);
  cg_cache_put(j->cache, &j->keys[i], about, &c->image);
  tell(j, i, (double[]){j->kernels[i].lower_ms, c->emit_ms, c->code_ms}, false);
  return !stopped(j);
}

static tt_status find_code(job *j, tt_error *err) {
  j->cache = j->o->cache;
  if (!j->cache) cg_cache_open(j->cache = &j->own);
  for (int i = 0; i < j->n; i++) {
    if (j->cache->folder[0]) j->keys[i] = cg_cache_key(j->kernels[i].text, j->cpu);
    if (cg_cache_get(j->cache, &j->keys[i], &j->images[i])) tell(j, i, (double[]){j->kernels[i].lower_ms, 0, 0}, true);
    else j->missing[j->n_missing] = j->kernels[i].loops, j->number[j->n_missing++] = i;
  }
  if (!j->n_missing) return TT_OK;
  const cg_llvm_api *api = cg_llvm_open(err);
  if (!api) return err->status;
  tt_status status = api->compile(j->cpu, j->missing, j->n_missing, j->o->n_threads > 0 ? j->o->n_threads : cg_default_threads(), j->compiled, keep, j, err);
  for (int m = 0; status == TT_OK && m < j->n_missing; m++) j->images[j->number[m]] = j->compiled[m].image;
  cg_cache_trim(j->cache);
  return status;
}

void cg_perf_map(const char *const *names, const rt_image *images, int n, rt_kernel *const *symbols) {
  const char *want = getenv("TT_PERF");
  char path[64];
  if (!want || strcmp(want, "1")) return;
  snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
  FILE *f = fopen(path, "a");
  if (!f) return;
  for (int i = 0; i < n; i++) fprintf(f, "%lx %lx tt.%s\n", (unsigned long)(uintptr_t)symbols[i], (unsigned long)(images[i].bytes - images[i].entry), names[i]);
  fclose(f);
}

static void free_images(rt_image *images, int n) {
  for (int i = 0; images && i < n; i++) free(images[i].data), images[i] = (rt_image){0};
}

tt_status cg_images(const cg_kernel *kernels, int n, const cg_cpu *cpu, const cg_options *o, rt_image *images, tt_error *err) {
  job *j = calloc(1, sizeof *j);
  size_t size = (size_t)n + 1;
  tt_status status;
  if (j) {
    j->kernels = kernels, j->n = n, j->o = o, j->cpu = cpu, j->images = images;
    j->keys = calloc(size, sizeof *j->keys), j->missing = calloc(size, sizeof *j->missing);
    j->number = calloc(size, sizeof *j->number), j->compiled = calloc(size, sizeof *j->compiled);
  }
  if (!j || !j->keys || !j->missing || !j->number || !j->compiled)
    status = tt_fail(err, TT_NO_MEMORY, "error: no memory to compile\n  at %d kernels\n  fix: make the model smaller", n);
  else if ((status = find_code(j, err)) == TT_OK) {
    char text[9000];
    if (o->warn && cg_cache_warning(j->cache, text, sizeof text)) o->warn(o->user, text);
  }
  if (status != TT_OK) free_images(images, n);
  if (j) free(j->keys), free(j->missing), free(j->number), free(j->compiled);
  free(j);
  return status;
}

rt_code *cg_code(const cg_kernel *kernels, int n, const cg_cpu *cpu, const cg_options *o, rt_kernel **symbols, tt_error *err) {
  rt_image *images = calloc((size_t)n + 1, sizeof *images);
  const char **names = calloc((size_t)n + 1, sizeof *names);
  rt_code *code = NULL;
  for (int i = 0; names && i < n; i++) names[i] = kernels[i].loops->name;
  if (!images || !names) tt_fail(err, TT_NO_MEMORY, "error: no memory to compile\n  at %d kernels\n  fix: make the model smaller", n);
  else if (cg_images(kernels, n, cpu, o, images, err) == TT_OK) code = rt_code_load(images, n, symbols, err);
  if (code) cg_perf_map(names, images, n, symbols);
  free_images(images, n);
  free(images), free(names);
  return code;
}
