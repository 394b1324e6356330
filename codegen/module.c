/* module.c: finds and opens the LLVM module, when the first kernel has to be compiled. */
#define _GNU_SOURCE       /* dladdr */
#include "codegen.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the LLVM module */

#define MODULE "libtinytorch_llvm.so"

static void *try_open(const char *path, char *why, size_t size) {
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!module) snprintf(why, size, "%s", dlerror());
  return module;
}

/* $ORIGIN in the RUNPATH of the library (or command) that this code stands in finds the module beside it or in ../lib. Where dlopen
 * does not see who calls it (under a sanitizer), and for programs that carry the library inside, the same is spelled out. */
static void *open_module(char *why, size_t size) {
  const char *set = getenv("TT_LLVM_MODULE");
  if (set && *set) return try_open(set, why, size);
  void *module = try_open(MODULE, why, size);
  for (int i = 0; i < 2 && !module; i++) {
    char path[4096 + 64] = "";
    Dl_info here;
    if (i == 0 && dladdr(MODULE, &here) && here.dli_fname) snprintf(path, 4096, "%s", here.dli_fname);
    if (i == 1 && readlink("/proc/self/exe", path, 4095) < 0) path[0] = 0;
    char *slash = strrchr(path, '/');
    if (!slash) continue;
    strcpy(slash, "/" MODULE);
    if (access(path, F_OK)) strcpy(slash, "/../lib/" MODULE);
    if (!access(path, F_OK)) module = try_open(path, why, size);
  }
  return module;
}

const cg_llvm_api *cg_llvm_open(tt_error *err) {
  /* Loading is idempotent (dlopen counts), so two threads that come first at once do no harm. The module stays loaded. */
  static _Atomic(const cg_llvm_api *) opened;
  const cg_llvm_api *api = atomic_load(&opened);
  if (api) return api;
  char why[800] = "";
  void *module = open_module(why, sizeof why);
  if (!module) {
    tt_fail(err, TT_UNSUPPORTED, "error: the module that calls LLVM cannot be opened: %s\n  at opening libtinytorch_llvm.so\n  fix: install it beside libtinytorch.so with LLVM 19, set TT_LLVM_MODULE to its path, or use the interpreter", why);
    return NULL;
  }
  const cg_llvm_api *(*get)(void);
  *(void **)&get = dlsym(module, "cg_llvm_module");
  api = get ? get() : NULL;
  if (!api || api->version != CG_LLVM_VERSION) {
    tt_fail(err, TT_UNSUPPORTED, "error: the module that calls LLVM is of another version, %d instead of %d\n  at opening libtinytorch_llvm.so\n  fix: install the module and the library from one build", api ? api->version : 0, CG_LLVM_VERSION);
    dlclose(module);
    return NULL;
  }
  atomic_store(&opened, api);
  return api;
}

static void *early(void *unused) {
  const cg_llvm_api *api = cg_llvm_open(NULL);
  if (api) api->prepare();
  return unused;
}

void cg_llvm_begin(cg_llvm_early *e) { e->started = !pthread_create(&e->thread, NULL, early, NULL); }

void cg_llvm_end(cg_llvm_early *e) {
  if (e->started) pthread_join(e->thread, NULL);
  e->started = false;
}
