/* aot.h: models compiled ahead of time. `tinytorch compile` writes an object file whose data is an rt_model, and functions of the model's name that
 * hand it to those below; a program that links it needs libtinytorch_rt alone. One object may hold code for several CPUs: the best that this one can
 * run is chosen when a model is made. */
#ifndef TT_AOT_H
#define TT_AOT_H

#include "runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cpu.c: the level of the x86-64 psABI, 1 to 4, of this CPU, and words of cpuid in which a bit is a feature. */
enum { RT_CPU_WORDS = 9 };
TT_API int rt_cpu_level(void);
TT_API bool rt_cpu_amx(void);        /* the CPU multiplies bf16 tiles, and the system lets this process: asked for here */
TT_API void rt_cpu_features(uint32_t words[RT_CPU_WORDS]);

typedef struct {
  const char *cpu;                                 /* "x86-64-v3"; "native": the CPU that compiled it, and those with all of its features */
  uint32_t level, needs[RT_CPU_WORDS];             /* needs: all features of native; of a level with bf16, those beyond it */
  const rt_program *step, *predict;                /* step: NULL when it was compiled without --train */
} rt_variant;

typedef struct {
  uint32_t version;                                /* RT_MODEL_VERSION */
  uint32_t n_variants;                             /* the most demanding first */
  const char *name;
  const rt_variant *variants;
  uint32_t n_state; const char *const *state;      /* names of the optimizer's state among the params */
} rt_model;
enum { RT_MODEL_VERSION = 4 };

/* A model with its memory and threads. One thread at a time; several models may run at once. Parameters are zeros until they are loaded. */
typedef struct rt_compiled rt_compiled;
TT_API rt_compiled *rt_compiled_new(int n_threads, tt_error *err, const rt_model *m);    /* 0: TT_NUM_THREADS, else all that may be used */
TT_API void rt_compiled_free(rt_compiled *c);
/* Weights and running statistics as safetensors; every one of the model must be there, in its type and shape. The optimizer's state and the count of steps
 * start anew. */
TT_API tt_status rt_compiled_load(rt_compiled *c, const char *path, tt_error *err);
TT_API tt_status rt_compiled_save(rt_compiled *c, const char *path, tt_error *err);
/* One training step on a batch: x as the model takes it, y the labels. loss may be NULL. The n-th step is the same as tt_train's with that seed. */
TT_API tt_status rt_compiled_step(rt_compiled *c, const void *x, const int32_t *y, double lr, double *loss, tt_error *err);
TT_API void rt_compiled_seed(rt_compiled *c, uint64_t seed);                             /* of dropout and noise in training; 0 at first */
/* The model's output for a batch, dense. */
TT_API tt_status rt_compiled_predict(rt_compiled *c, const void *x, void *out, tt_error *err);
TT_API rt_params *rt_compiled_params(rt_compiled *c);                                    /* borrowed */
TT_API const char *rt_compiled_cpu(const rt_compiled *c);                                /* which variant runs */

#ifdef __cplusplus
}
#endif
#endif
