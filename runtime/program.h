/* program.h: what a compiled step is. All backends make one; the executor knows nothing else.
 *
 * A program is a table of steps, walked by every thread of the team: each runs its share of the step's tasks, then meets
 * the others at a barrier. Buffers are slots of a table of pointers: some lie in the program's arena, some belong to
 * params that outlive a call, some are bound by the caller. */
#ifndef TT_PROGRAM_H
#define TT_PROGRAM_H

#include "../ir/types.h"

/* A kernel: tasks begin..end-1. args: pointers in the order of the step. scratch: this thread's, of the program's
 * scratch_bytes. context: the step's. */
typedef void rt_kernel(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context);

typedef enum {
  RT_INPUT,     /* bound by the caller before each run */
  RT_PARAM,     /* state: bound once, lives across runs */
  RT_OUTPUT,    /* where the caller wants a result; when it is not bound, the program keeps one of its own */
  RT_ARENA,     /* offset bytes into the arena */
  RT_CONST,     /* data of the program */
} rt_slot_kind;

typedef struct {
  const char *name;              /* INPUT, PARAM, OUTPUT */
  tt_dtype dtype;
  tt_shape shape;
  uint8_t kind;
  bool trainable;                /* PARAM */
  size_t bytes, offset;          /* ARENA: offset */
  const void *data;              /* CONST */
} rt_slot;

typedef struct {
  rt_kernel *run;
  const void *context;           /* JIT kernels: rt_functions; the interpreter: its node */
  const uint32_t *slots;         /* of each argument */
  uint32_t n_slots;
  int64_t tasks;
  bool serial;                   /* runs on one thread whatever tasks is */
  const char *name;              /* kernel */
  const char *origin;            /* "mlp.c:14 fc1; mlp.c:15", for profiles and errors */
  const uint32_t *writes; uint32_t n_writes;     /* slots written */
} rt_step;

typedef struct rt_program {
  const rt_step *steps; uint32_t n_steps;
  const rt_slot *slots; uint32_t n_slots;
  size_t arena_bytes, scratch_bytes;
  void (*release)(struct rt_program *p);         /* the backend's: frees code and tables; rt_program_free calls it */
  void *owner;                                    /* the backend's */
} rt_program;

/* C functions that kernels may call: rt_step.context of every JIT kernel points to it. functions.c; FN1(name): one argument,
 * FN2(name): two; f64 only (f32 goes through it). */
#define RT_FUNCTIONS(FN1, FN2) \
  FN1(exp) FN1(expm1) FN1(log) FN1(log1p) FN1(sin) FN1(cos) FN1(tan) FN1(atan) FN1(tanh) FN1(erf) FN2(pow) FN2(fmod) FN2(atan2)
typedef struct {
#define FN1(name) double (*name)(double);
#define FN2(name) double (*name)(double, double);
  RT_FUNCTIONS(FN1, FN2)
#undef FN1
#undef FN2
} rt_functions;
TT_API extern const rt_functions rt_function_table;

/* sort.c: kernels in C. args: x, then the i64 result; context: rt_sort. One task sorts one line. */
typedef struct { tt_dtype dtype; int64_t length, stride, inner; bool descending; } rt_sort;   /* line t starts at (t/inner)*inner*length + t%inner, stride inner */
TT_API void rt_argsort(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context);

#endif
