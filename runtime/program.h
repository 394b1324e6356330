/* program.h: what a compiled step is. All backends make one; the executor knows nothing else.
 *
 * A program is a table of steps, walked by every thread of the team: each runs its share of a step's tasks, and meets the others
 * before a step that is marked so. Buffers are slots of a table of pointers: some lie in the program's arena, some belong to
 * params that outlive a call, some are bound by the caller. The first n_once steps depend on params alone: they run when one of these has
 * changed since, and what they leave in the arena for the others stays there.
 *
 * The whole is constant data: numbers, texts, and addresses of functions and of other constant data. So a compiler may write it
 * into an object file as it stands. */
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
  uint32_t slot;
  bool written;                  /* else only read */
  int64_t task_bytes;            /* task t touches nothing but bytes t*task_bytes .. (t+1)*task_bytes-1; 0: any task any byte */
  int64_t offset;                /* bytes from the slot's beginning to the argument, in the first step of a loop */
} rt_arg;

/* Steps first .. end-1 run `length` times, one time after another; after each, the arguments of moves[moves ...] go on by so many bytes. Loops that stand in
 * others come before them, and where several end, the inner first. */
typedef struct { uint32_t arg; int64_t stride; } rt_move;
typedef struct { uint32_t first, end; int64_t length; uint32_t moves, n_moves, depth; } rt_loop;      /* depth: loops around it, less than RT_LOOP_DEPTH */
enum { RT_LOOP_DEPTH = 8 };

typedef struct {
  rt_kernel *run;
  const void *context;           /* JIT kernels: rt_function_table; C kernels: constant data of context_bytes */
  int64_t tasks;
  uint32_t args, n_args;         /* its arguments: program.args[args ...] */
  uint32_t context_bytes;        /* 0: rt_function_table, or what only this process has (the interpreter's graph) */
  uint16_t thread;               /* shares of tasks are dealt from this thread on (modulo the team); one task: it runs there */
  bool serial;                   /* runs on one thread whatever tasks is */
  bool barrier;                  /* all threads meet before it */
  const char *name;              /* kernel */
  const char *origin;            /* "mlp.c:14 fc1; mlp.c:15", for profiles and errors */
} rt_step;

typedef struct rt_program {
  const rt_step *steps; uint32_t n_steps, n_once;
  const rt_slot *slots; uint32_t n_slots;
  const rt_arg *args; uint32_t n_args;           /* of all steps */
  const rt_loop *loops; uint32_t n_loops;        /* none contains once steps */
  const rt_move *moves; uint32_t n_moves;        /* of all loops */
  size_t arena_bytes, scratch_bytes;             /* scratch: of each thread */
  void (*release)(struct rt_program *p);         /* the backend's: frees code and tables; rt_program_free calls it; NULL: nothing to free */
  void *owner;                                    /* the backend's */
  uint64_t tuned;                                /* hash of the measured plans in it; 0: none */
} rt_program;

/* barriers.c: fills `thread` and `barrier` of all steps from what they read and write; right for any number of threads. Part of making
 * a program, once the rest of the table stands. False: no memory. */
typedef struct { const rt_arg *args; uint32_t n_args; const rt_slot *slots; const rt_loop *loops; uint32_t n_loops; const rt_move *moves; } rt_step_tables;
TT_API bool rt_place_steps(rt_step *steps, uint32_t n_steps, const rt_step_tables *t);

/* The tasks of a step that thread `thread` of n does. */
static inline void rt_share(const rt_step *s, int thread, int n, int64_t *begin, int64_t *end) {
  int64_t place = ((int64_t)thread + n - s->thread % n) % n;
  if (s->serial || s->tasks <= 1) *begin = 0, *end = place ? 0 : s->tasks;
  else *begin = s->tasks * place / n, *end = s->tasks * (place + 1) / n;
}

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

/* Kernels in C. functions.c: args: from, to; context: rt_copy_size. A task copies RT_COPY_TASK bytes.
 * sort.c: args: x, then the i64 result; context: rt_sort. One task sorts one line. */
enum { RT_COPY_TASK = 64 << 10 };
typedef struct { size_t bytes; } rt_copy_size;
TT_API void rt_copy(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context);
typedef struct { tt_dtype dtype; int64_t length, stride, inner; bool descending; } rt_sort;   /* line t starts at (t/inner)*inner*length + t%inner, stride inner */
TT_API void rt_argsort(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context);

#endif
