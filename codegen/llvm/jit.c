/* jit.c: the module's interface: kernels of the loop language in, images of machine code out.
 *
 * Threads take kernels, the largest first, each with a target machine of its own: kernel -> LLVM module -> object file in memory -> image (object.c).
 * One kernel is one module, so that its code depends on nothing but itself. No IR pass runs: the emitter's IR is as it should be. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <llvm-c/Analysis.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>

#include "llvm.h"

TT_API const cg_llvm_api *cg_llvm_module(void);

static void initialize(void) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeX86AsmParser();
  /* Loop strength reduction takes up to two thirds of a kernel's compile time. The emitter writes inner loops as it would (em_place).
   * What else stays the same in a loop it hoists itself (expr.c): LLVM would carry constants too, more than there are registers for.
   * Scheduling after register allocation is for CPUs that run instructions as they stand. The rest changed nothing in
   * any kernel of the training steps of gpt, cnn and resnet20 for x86-64-v2, v4 and Zen 3, and cost 2% of LLVM's time. */
  const char *const options[] = {"tinytorch", "-disable-lsr", "-disable-machine-licm", "-disable-post-ra",
    "-disable-tail-duplicate", "-disable-early-taildup", "-disable-constant-hoisting", "-disable-x86-lea-opt", "-x86-disable-avoid-SFB",
    "-disable-x86-domain-reassignment", "-x86-early-ifcvt=0", "-disable-partial-libcall-inlining"};
  LLVMParseCommandLineOptions(sizeof options / sizeof *options, options, NULL);
}
static pthread_once_t initialized = PTHREAD_ONCE_INIT;
static void prepare(void) { pthread_once(&initialized, initialize); }

static tt_status no_memory(tt_error *err) { return tt_fail(err, TT_NO_MEMORY, "error: no memory to compile\n  at codegen/llvm/jit.c\n  fix: free some"); }

/* ---- one module */

/* "native" is what LLVM finds this CPU to be; both texts are LLVM's to free. */
static bool resolve(const cg_cpu *cpu, cg_cpu *to, char **name, char **features) {
  *to = *cpu;
  *name = *features = NULL;
  const char *more = strchr(cpu->name, '+');              /* a level and features; LLVM has a name for the level alone */
  if (more && (*name = LLVMCreateMessage(cpu->name))) (*name)[more - cpu->name] = 0, to->name = *name;
  if (strcmp(cpu->name, "native")) return !more || *name;
  to->name = *name = LLVMGetHostCPUName();
  to->features = *features = LLVMGetHostCPUFeatures();
  return *name && *features;
}

static void drop(char *name, char *features) {
  if (name) LLVMDisposeMessage(name);
  if (features) LLVMDisposeMessage(features);
}

/* Level 1 makes the code of levels 2 and 3 from such IR (58 of 58 kernels of a network are the same to the byte), in less time. */
static LLVMTargetMachineRef machine(const cg_cpu *cpu, tt_error *err) {
  LLVMTargetRef target;
  char *triple = LLVMGetDefaultTargetTriple(), *text = NULL;
  LLVMTargetMachineRef m = NULL;
  if (LLVMGetTargetFromTriple(triple, &target, &text)) {
    tt_fail(err, TT_UNSUPPORTED, "error: LLVM has no target %s: %s\n  at codegen/llvm/jit.c\n  fix: use an LLVM that was built for x86-64", triple, text);
    LLVMDisposeMessage(text);
  } else {
    m = LLVMCreateTargetMachine(target, triple, cpu->name, cpu->features ? cpu->features : "", LLVMCodeGenLevelLess, LLVMRelocPIC, LLVMCodeModelSmall);
    if (!m) tt_fail(err, TT_UNSUPPORTED, "error: LLVM does not know the CPU %s\n  at codegen/llvm/jit.c\n  fix: set TT_CPU=x86-64-v3", cpu->name);
  }
  LLVMDisposeMessage(triple);
  return m;
}

#define SYMBOL "kernel"

/* The kernel as the one function of e's module. */
static bool build(em *e, LLVMTargetMachineRef m, const lp_kernel *kernel) {
  char *triple = LLVMGetTargetMachineTriple(m), *text = NULL;
  LLVMSetTarget(e->module, triple);
  LLVMDisposeMessage(triple);
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(m);
  LLVMSetModuleDataLayout(e->module, layout);
  LLVMDisposeTargetData(layout);
  if (!em_function(e, kernel, SYMBOL)) return false;
  bool broken = false;
#ifndef NDEBUG
  broken = LLVMVerifyModule(e->module, LLVMReturnStatusAction, &text);
  if (broken) tt_fail(e->err, TT_INTERNAL, "error: kernel %s became wrong LLVM IR: %s\n  at codegen/llvm/emit.c\n  fix: report this", kernel->name, text);
#endif
  if (text) LLVMDisposeMessage(text);
  return !broken;
}

static LLVMMemoryBufferRef generate(em *e, LLVMTargetMachineRef m, LLVMCodeGenFileType kind) {
  char *text = NULL;
  LLVMMemoryBufferRef object = NULL;
  if (LLVMTargetMachineEmitToMemoryBuffer(m, e->module, kind, &text, &object)) {
    tt_fail(e->err, TT_INTERNAL, "error: LLVM makes no code: %s\n  at codegen/llvm/jit.c\n  fix: report this", text ? text : "?");
    LLVMDisposeMessage(text);
    return NULL;
  }
  return object;
}

/* ---- many kernels on many threads */

typedef struct {
  cg_cpu cpu;                           /* by its name at LLVM */
  lp_kernel *const *kernels;
  const int *order;                     /* the largest first */
  int n;
  cg_compiled *out;
  cg_llvm_done *done; void *user;
  pthread_mutex_t lock;                 /* of done */
  atomic_int next;
  atomic_bool failed;
} job;
typedef struct { job *job; tt_error err; pthread_t thread; bool started; } worker;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool compile_one(job *j, LLVMTargetMachineRef m, int i, tt_error *err) {
  em e;
  cg_compiled *out = &j->out[i];
  double start = now_ms();
  em_open(&e, &j->cpu, "tinytorch", err);
  bool ok = build(&e, m, j->kernels[i]);
  double built = now_ms();
  LLVMMemoryBufferRef object = ok ? generate(&e, m, LLVMObjectFile) : NULL;
  ok = object && err->status == TT_OK && em_image(LLVMGetBufferStart(object), LLVMGetBufferSize(object), SYMBOL, j->kernels[i]->name, &out->image, err);
  if (object) LLVMDisposeMemoryBuffer(object);
  em_close(&e);
  out->emit_ms = built - start, out->code_ms = now_ms() - built;
  if (!ok) return false;
  pthread_mutex_lock(&j->lock);
  bool go_on = !j->done || j->done(j->user, i);
  pthread_mutex_unlock(&j->lock);
  return go_on;
}

static void *work(void *arg) {
  worker *w = arg;
  job *j = w->job;
  LLVMTargetMachineRef m = machine(&j->cpu, &w->err);
  while (m && !atomic_load(&j->failed)) {
    int i = atomic_fetch_add(&j->next, 1);
    if (i >= j->n) break;
    if (!compile_one(j, m, j->order[i], &w->err)) atomic_store(&j->failed, true);
  }
  if (!m) atomic_store(&j->failed, true);
  else LLVMDisposeTargetMachine(m);
  return NULL;
}

/* The largest first, so that no thread is left with one at the end. */
typedef struct { uint32_t size; int i; } sized;
static int larger(const void *a, const void *b) {
  const sized *x = a, *y = b;
  return x->size != y->size ? (x->size < y->size ? 1 : -1) : x->i - y->i;
}
static int *order_of(lp_kernel *const *kernels, int n) {
  sized *all = malloc((size_t)n * sizeof *all);
  int *order = malloc((size_t)n * sizeof *order);
  for (int i = 0; all && order && i < n; i++) all[i] = (sized){kernels[i]->n_exprs, i};
  if (all && order) qsort(all, (size_t)n, sizeof *all, larger);
  for (int i = 0; all && order && i < n; i++) order[i] = all[i].i;
  free(all);
  return order;
}

static tt_status compile(const cg_cpu *cpu, lp_kernel *const *kernels, int n, int n_threads, cg_compiled *out, cg_llvm_done *done, void *user, tt_error *err) {
  enum { MAX_THREADS = 64 };
  for (int i = 0; i < n; i++) out[i] = (cg_compiled){0};
  if (n <= 0) return TT_OK;
  prepare();
  if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
  if (n_threads > n) n_threads = n;
  if (n_threads < 1) n_threads = 1;
  job j = {.kernels = kernels, .n = n, .out = out, .done = done, .user = user, .lock = PTHREAD_MUTEX_INITIALIZER};
  char *name, *features;
  int *order = order_of(kernels, n);
  worker *workers = calloc((size_t)n_threads, sizeof *workers);
  tt_status status = TT_OK;
  if (!resolve(cpu, &j.cpu, &name, &features) || !order || !workers) status = no_memory(err);
  j.order = order;
  for (int i = 0; status == TT_OK && i < n_threads; i++) {
    workers[i].job = &j;
    if (i) workers[i].started = !pthread_create(&workers[i].thread, NULL, work, &workers[i]);
  }
  if (status == TT_OK) work(&workers[0]);
  for (int i = 1; workers && i < n_threads; i++)
    if (workers[i].started) pthread_join(workers[i].thread, NULL);
  for (int i = 0; status == TT_OK && i < n_threads; i++)
    if (workers[i].err.status != TT_OK) status = tt_fail(err, workers[i].err.status, "%s", workers[i].err.message);
  if (status == TT_OK && atomic_load(&j.failed)) status = tt_fail(err, TT_INTERRUPTED, "error: compiling was interrupted\n  at %d kernels\n  fix: start again; what was compiled so far is in the cache", n);
  free(workers), free(order);
  drop(name, features);
  for (int i = 0; status != TT_OK && i < n; i++) free(out[i].image.data), out[i] = (cg_compiled){0};
  return status;
}

static char *text(const cg_cpu *cpu, const lp_kernel *kernel, bool assembly, tt_error *err) {
  prepare();
  cg_cpu known;
  char *name, *features, *result = NULL;
  LLVMTargetMachineRef m = resolve(cpu, &known, &name, &features) ? machine(&known, err) : NULL;
  if (m) {
    em e;
    em_open(&e, &known, kernel->name, err);
    if (build(&e, m, kernel)) {
      if (assembly) {
        LLVMMemoryBufferRef buffer = generate(&e, m, LLVMAssemblyFile);
        if (buffer) {
          result = strndup(LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer));
          LLVMDisposeMemoryBuffer(buffer);
        }
      } else {
        char *ir = LLVMPrintModuleToString(e.module);
        result = strdup(ir);
        LLVMDisposeMessage(ir);
      }
      if (!result) no_memory(err);
    }
    em_close(&e);
    LLVMDisposeTargetMachine(m);
  }
  drop(name, features);
  return result;
}

const cg_llvm_api *cg_llvm_module(void) {
  static const cg_llvm_api api = {CG_LLVM_VERSION, prepare, compile, text};
  return &api;
}
