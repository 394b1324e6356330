/* codegen.h: scheduled graphs to programs. Three ways to the same interface: interp (walks rows, plain C), jit (machine code in
 * memory) and later aot. lower.c and contract.c turn a kernel of the graph into loops; llvm/ is a module of its own, opened
 * on demand, and the only place that knows LLVM. */
#ifndef TT_CODEGEN_H
#define TT_CODEGEN_H

#include "../passes/passes.h"
#include "../runtime/image.h"
#include "../runtime/runtime.h"
#include "loops.h"

#include <pthread.h>

/* cpu.c: what to compile for, from cpuid or by name, with a table of levels. */
typedef struct {
  const char *name;               /* LLVM's: "znver3", "x86-64-v3" */
  const char *features;           /* LLVM's feature string when name is a generic level or the CPU is unknown to LLVM, else "" */
  int level;                      /* x86-64-v1..4 */
  int vector_bytes, n_registers;
  bool fma, avx2, avx512, f16c, vnni, bf16, amx, masks;      /* masks: masked loads and stores are instructions; bf16: vdpbf16ps, where it is faster than f32 */
  int64_t l1d, l2, l3;            /* bytes, of one core / shared */
} cg_cpu;
/* name: NULL or "native" (then TT_CPU is looked at), or another of cg_cpu_names. Fails when this CPU cannot run it. */
extern const char *const cg_cpu_names[];     /* "native", "x86-64-v2", ... "x86-64-v4+amx", NULL */
int cg_cpu_rank(const char *name);           /* a higher one asks for more; native for most */
TT_API tt_status cg_cpu_get(const char *name, cg_cpu *cpu, tt_error *err);
/* "AuthenticAMD-25-1/v3/32": this machine's CPU and what is compiled for: all that plans depend on, and with them the order of additions. */
TT_API char *cg_cpu_text(const cg_cpu *cpu, char *text, size_t size);
/* The same for code that another CPU will run. */
TT_API tt_status cg_cpu_target(const char *name, cg_cpu *cpu, tt_error *err);
/* Words as rt_cpu_features gives them: what a level needs beyond its number. */
void cg_cpu_needs(const cg_cpu *cpu, uint32_t *words);
/* All of the CPU that a kernel's code depends on: a level's name, or for native what cpuid says. Returns text. */
TT_API char *cg_cpu_identity(const cg_cpu *cpu, char *text, size_t size);

/* lower.c, contract.c: kernel `region` of a scheduled graph as loops. rows: the graph row behind each argument buffer, in order
 * (external reads, then results; a buffer read and written in place appears once); filled with k->n_buffers - scratch entries. */
lp_kernel *cg_lower(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, int max_rows, tt_error *err);
lp_kernel *cg_lower_contract(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, int max_rows, tt_error *err);

/* program.c: a program being made from a graph. Slots for inputs, params, constants and computed rows; steps are the backend's, in
 * the order of calls; copies for outputs and assigns come last. All is copied, so that the graph may be freed.
 * placed: computed rows lie where memory put them; else each gets bytes here, by its lifetime in the order of rows. */
typedef struct cg_program cg_program;
cg_program *cg_program_new(const ir_graph *g, bool placed, tt_error *err);
void *cg_program_alloc(cg_program *c, size_t bytes);   /* zeroed, 64-byte aligned, lives as long as the program; NULL: no memory, err is set */
bool cg_program_slot(cg_program *c, ir_ref r, uint32_t *slot);
/* A step of kernel `region` (or of row r alone, region 0) whose arguments are args; among them all rows of it that others use.
 * task_bytes: of each argument, as in rt_arg; NULL: not known. context, context_bytes: as in rt_step. */
typedef struct { rt_kernel *run; const void *context; uint32_t context_bytes; const char *name; uint32_t region; ir_ref row; const ir_ref *args; const int64_t *task_bytes; uint32_t n_args; int64_t tasks; bool serial; } cg_step;
bool cg_program_step(cg_program *c, const cg_step *s);
/* The scan of kernel `region`: until its end, rows and regions are those of its body, and steps run once for each of its steps. */
bool cg_program_scan(cg_program *c, uint32_t region);
bool cg_program_scan_end(cg_program *c);
/* Adds the copies and gives the program. owner: the backend's, freed by free_owner with the program (or here, when it fails). */
tt_status cg_program_finish(cg_program *c, size_t scratch_bytes, void *owner, void (*free_owner)(void *owner), rt_program **p);
void cg_program_free(cg_program *c);                   /* one that is not finished; NULL is fine */

/* memory.c: what the program of g, scheduled and placed, will take in a team of n_threads. */
TT_API tt_status cg_memory(const ir_graph *g, const char *cpu, int n_threads, rt_memory *m, tt_error *err);

/* shares.c: bytes[i] of argument i: task t touches only bytes t*bytes[i] .. (t+1)*bytes[i]-1 of it; 0: not known. */
void cg_task_bytes(lp_kernel *k, int64_t *bytes);

/* A kernel is ready: the done-th of total. milliseconds: lowering, LLVM IR, machine code; cached: its code was in the cache. */
typedef void cg_kernel_watch(void *user, const char *name, int done, int total, const double milliseconds[3], bool cached);
typedef void cg_warn(void *user, const char *text);

typedef struct {
  const char *cpu;                /* NULL: native */
  int n_threads;                  /* to compile with; 0: as many as there are */
  pass_watch *watch; void *user;
  cg_kernel_watch *kernel;        /* after every kernel; called by one thread at a time */
  cg_warn *warn;
  const volatile int *stop;       /* set to 1: compilation ends with TT_INTERRUPTED */
  struct cg_cache *cache;         /* open; NULL: cg_jit opens it */
  uint64_t tuned;                 /* as in rt_program */
  const rt_key *keep;             /* the program goes to that cache under this key; NULL: only its kernels do */
} cg_options;
TT_API tt_status cg_jit(const ir_graph *g, const cg_options *o, rt_program **p, tt_error *err);        /* jit.c; g scheduled and placed */
TT_API tt_status cg_interp(const ir_graph *g, const cg_options *o, rt_program **p, tt_error *err);     /* interp.c; g at any stage without composites */

/* The LLVM module's interface (llvm/), got by dlopen of the module libtinytorch_llvm. */
typedef struct { rt_image image; double emit_ms, code_ms; } cg_compiled;      /* image.data: malloc'ed, the caller's */
/* A kernel is compiled (called by one thread at a time); false: stop, and compile returns TT_INTERRUPTED. */
typedef bool cg_llvm_done(void *user, int i);
typedef struct {
  int version;
  void (*prepare)(void);          /* what the first compilation would do before it starts */
  /* Compiles n kernels on n_threads threads. */
  tt_status (*compile)(const cg_cpu *cpu, lp_kernel *const *kernels, int n, int n_threads, cg_compiled *out, cg_llvm_done *done, void *user, tt_error *err);
  /* "llvm" or "asm" text of one kernel; malloc'ed. */
  char *(*text)(const cg_cpu *cpu, const lp_kernel *kernel, bool assembly, tt_error *err);
} cg_llvm_api;
#define CG_LLVM_VERSION 3
TT_API const cg_llvm_api *cg_llvm_module(void);       /* llvm/jit.c: the one symbol that the module exports */
const cg_llvm_api *cg_llvm_open(tt_error *err);       /* module.c */
/* Opens the module on a thread of its own, while passes run; what goes wrong is said by cg_llvm_open. end waits for it. */
typedef struct { pthread_t thread; bool started; } cg_llvm_early;
void cg_llvm_begin(cg_llvm_early *e);
void cg_llvm_end(cg_llvm_early *e);

/* blas.c: whether a kernel is a product that OpenBLAS does faster (its row is *row) and whether it is there too, the step that calls it, and the functions
 * of such a step's context once more, in another process (NULL: none is asked for); false: there is no OpenBLAS. */
bool cg_blas_could(const ir_graph *g, uint32_t region, ir_ref *row);
bool cg_blas_wants(const ir_graph *g, uint32_t region, ir_ref *row);
bool cg_blas_bind(void *context);
rt_kernel cg_blas_kernel;
bool cg_blas_step(const ir_graph *g, uint32_t region, ir_ref row, cg_program *c);

/* Text of one stage for dump: "loops", "llvm", "asm" of all kernels. malloc'ed. kernel: NULL, or told of each (LLVM IR and machine code in one). */
TT_API char *cg_dump(const ir_graph *g, const char *stage, const cg_cpu *cpu, cg_kernel_watch *kernel, void *user, tt_error *err);

#endif
