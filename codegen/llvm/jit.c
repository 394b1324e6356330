/* jit.c: the module's interface: kernels of the loop language in, addresses of machine code out.
 *
 * Threads take kernels in chunks, each with a context and a target machine of its own: chunk -> LLVM module -> object file in memory.
 * An object is looked into before it is linked: a kernel refers to no symbol but its own, so any that is undefined is an error (LLVM
 * turns what it has no instruction for into calls of libm). LLJIT then links the objects. TT_PERF=1 in the environment
 * writes the map file that perf reads. */
#include <elf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <llvm-c/Analysis.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>

#include "llvm.h"

TT_API const cg_llvm_api *cg_llvm_module(void);

struct cg_llvm_jit {
  cg_cpu cpu;
  char *name, *features;                /* what cpu points to */
  LLVMOrcLLJITRef lljit;
  unsigned n_kernels;                   /* symbols are k0, k1, ... */
};

static void initialize(void) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeX86AsmParser();
}
static pthread_once_t initialized = PTHREAD_ONCE_INIT;

static tt_status fail(tt_error *err, LLVMErrorRef e, const char *doing) {
  char *text = LLVMGetErrorMessage(e);
  tt_status s = tt_fail(err, TT_INTERNAL, "error: %s: %s\n  at codegen/llvm/jit.c\n  fix: report this", doing, text);
  LLVMDisposeErrorMessage(text);
  return s;
}

static tt_status no_memory(tt_error *err) { return tt_fail(err, TT_NO_MEMORY, "error: no memory to compile\n  at codegen/llvm/jit.c\n  fix: free some"); }

/* ---- one module */

/* "native" is what LLVM finds this CPU to be; both texts are LLVM's to free. */
static bool resolve(const cg_cpu *cpu, cg_cpu *to, char **name, char **features) {
  *to = *cpu;
  *name = *features = NULL;
  if (cpu->name && strcmp(cpu->name, "native")) return true;
  to->name = *name = LLVMGetHostCPUName();
  to->features = *features = LLVMGetHostCPUFeatures();
  return *name && *features;
}

static void drop(char *name, char *features) {
  if (name) LLVMDisposeMessage(name);
  if (features) LLVMDisposeMessage(features);
}

static LLVMTargetMachineRef machine(const cg_cpu *cpu, tt_error *err) {
  LLVMTargetRef target;
  char *triple = LLVMGetDefaultTargetTriple(), *text = NULL;
  LLVMTargetMachineRef m = NULL;
  if (LLVMGetTargetFromTriple(triple, &target, &text)) {
    tt_fail(err, TT_UNSUPPORTED, "error: LLVM has no target %s: %s\n  at codegen/llvm/jit.c\n  fix: use an LLVM that was built for x86-64", triple, text);
    LLVMDisposeMessage(text);
  } else {
    m = LLVMCreateTargetMachine(target, triple, cpu->name, cpu->features ? cpu->features : "", LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelSmall);
    if (!m) tt_fail(err, TT_UNSUPPORTED, "error: LLVM does not know the CPU %s\n  at codegen/llvm/jit.c\n  fix: set TT_CPU=x86-64-v3", cpu->name);
  }
  LLVMDisposeMessage(triple);
  return m;
}

/* Kernels first..first+n-1 into e, named by their number. */
static bool build(em *e, LLVMTargetMachineRef m, lp_kernel *const *kernels, unsigned n, unsigned first) {
  char *triple = LLVMGetTargetMachineTriple(m), *text = NULL, symbol[32];
  LLVMSetTarget(e->module, triple);
  LLVMDisposeMessage(triple);
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(m);
  LLVMSetModuleDataLayout(e->module, layout);
  LLVMDisposeTargetData(layout);
  for (unsigned i = 0; i < n; i++) {
    snprintf(symbol, sizeof symbol, "k%u", first + i);
    if (!em_function(e, kernels[i], symbol)) return false;
  }
  bool broken = false;
#ifndef NDEBUG
  broken = LLVMVerifyModule(e->module, LLVMReturnStatusAction, &text);
  if (broken) tt_fail(e->err, TT_INTERNAL, "error: kernel %s became wrong LLVM IR: %s\n  at codegen/llvm/emit.c\n  fix: report this", kernels[0]->name, text);
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

/* The first undefined symbol of an object file, or NULL. */
static const char *undefined_symbol(const char *data, size_t size) {
  const Elf64_Ehdr *head = (const void *)data;
  if (size < sizeof *head || head->e_shoff + (size_t)head->e_shnum * sizeof(Elf64_Shdr) > size) return "(not an ELF file)";
  const Elf64_Shdr *sections = (const void *)(data + head->e_shoff);
  for (int i = 0; i < head->e_shnum; i++) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const Elf64_Sym *symbols = (const void *)(data + sections[i].sh_offset);
    const char *names = data + sections[sections[i].sh_link].sh_offset;
    for (size_t j = 1; j < sections[i].sh_size / sizeof *symbols; j++)
      if (symbols[j].st_shndx == SHN_UNDEF) return names + symbols[j].st_name;
  }
  return NULL;
}

/* ---- many modules on many threads */

typedef struct {
  cg_llvm_jit *jit;
  lp_kernel *const *kernels;
  unsigned n, first, chunk;
  atomic_uint next;
  atomic_bool failed;
} job;
typedef struct { job *job; tt_error err; pthread_t thread; bool started; } worker;

static void compile_chunk(job *j, LLVMTargetMachineRef m, unsigned begin, unsigned n, tt_error *err) {
  em e;
  char name[64];
  snprintf(name, sizeof name, "tinytorch.%u", j->first + begin);
  em_open(&e, &j->jit->cpu, name, err);
  LLVMMemoryBufferRef object = build(&e, m, j->kernels + begin, n, j->first + begin) ? generate(&e, m, LLVMObjectFile) : NULL;
  if (object && err->status != TT_OK) {
    LLVMDisposeMemoryBuffer(object);
  } else if (object) {
    const char *symbol = undefined_symbol(LLVMGetBufferStart(object), LLVMGetBufferSize(object));
    if (symbol) {
      tt_fail(err, TT_INTERNAL, "error: the code of kernel %s calls %s\n  at codegen/llvm/jit.c\n  fix: kernels must be whole: report this",
              j->kernels[begin]->name, symbol);
      LLVMDisposeMemoryBuffer(object);
    } else {
      LLVMErrorRef bad = LLVMOrcLLJITAddObjectFile(j->jit->lljit, LLVMOrcLLJITGetMainJITDylib(j->jit->lljit), object);
      if (bad) fail(err, bad, "adding an object");
    }
  }
  em_close(&e);
}

static void *work(void *arg) {
  worker *w = arg;
  job *j = w->job;
  LLVMTargetMachineRef m = machine(&j->jit->cpu, &w->err);
  while (m && !atomic_load(&j->failed) && w->err.status == TT_OK) {
    unsigned begin = atomic_fetch_add(&j->next, j->chunk);
    if (begin >= j->n) break;
    compile_chunk(j, m, begin, j->n - begin < j->chunk ? j->n - begin : j->chunk, &w->err);
  }
  if (w->err.status != TT_OK) atomic_store(&j->failed, true);
  if (m) LLVMDisposeTargetMachine(m);
  return NULL;
}

/* Lines "start size name": a kernel ends where the next one begins, at most a page on when it is the last. */
static void write_perf_map(rt_kernel *const *symbols, lp_kernel *const *kernels, int n) {
  const char *want = getenv("TT_PERF");
  char path[64];
  if (!want || strcmp(want, "1")) return;
  snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
  FILE *f = fopen(path, "a");
  if (!f) return;
  for (int i = 0; i < n; i++) {
    uintptr_t start = (uintptr_t)symbols[i], end = start + 4096;
    for (int k = 0; k < n; k++)
      if ((uintptr_t)symbols[k] > start && (uintptr_t)symbols[k] < end) end = (uintptr_t)symbols[k];
    fprintf(f, "%lx %lx tt.%s\n", (unsigned long)start, (unsigned long)(end - start), kernels[i]->name);
  }
  fclose(f);
}

static tt_status compile(cg_llvm_jit *jit, lp_kernel *const *kernels, int n, int n_threads, rt_kernel **symbols, tt_error *err) {
  enum { MAX_THREADS = 64, MAX_CHUNK = 8 };
  if (n <= 0) return TT_OK;
  if (n_threads < 1) n_threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
  if (n_threads > n) n_threads = n;
  if (n_threads < 1) n_threads = 1;
  unsigned chunk = (unsigned)((n + 2 * n_threads - 1) / (2 * n_threads));
  job j = {.jit = jit, .kernels = kernels, .n = (unsigned)n, .first = jit->n_kernels, .chunk = chunk > MAX_CHUNK ? MAX_CHUNK : chunk};
  jit->n_kernels += (unsigned)n;
  worker *workers = calloc((size_t)n_threads, sizeof *workers);
  if (!workers) return no_memory(err);
  for (int i = 0; i < n_threads; i++) workers[i].job = &j;
  for (int i = 1; i < n_threads; i++) workers[i].started = !pthread_create(&workers[i].thread, NULL, work, &workers[i]);
  work(&workers[0]);
  for (int i = 1; i < n_threads; i++)
    if (workers[i].started) pthread_join(workers[i].thread, NULL);
  tt_status status = TT_OK;
  for (int i = 0; i < n_threads && status == TT_OK; i++)
    if (workers[i].err.status != TT_OK) status = tt_fail(err, workers[i].err.status, "%s", workers[i].err.message);
  free(workers);
  for (int i = 0; i < n && status == TT_OK; i++) {
    char name[32];
    LLVMOrcExecutorAddress address = 0;
    snprintf(name, sizeof name, "k%u", j.first + (unsigned)i);
    LLVMErrorRef bad = LLVMOrcLLJITLookup(jit->lljit, &address, name);
    if (bad) return fail(err, bad, "linking a kernel");
    symbols[i] = (rt_kernel *)(uintptr_t)address;
  }
  if (status == TT_OK) write_perf_map(symbols, kernels, n);
  return status;
}

/* ---- life */

static void destroy(cg_llvm_jit *jit) {
  if (!jit) return;
  if (jit->lljit) LLVMConsumeError(LLVMOrcDisposeLLJIT(jit->lljit));
  drop(jit->name, jit->features);
  free(jit);
}

static cg_llvm_jit *create(const cg_cpu *cpu, tt_error *err) {
  pthread_once(&initialized, initialize);
  cg_llvm_jit *jit = calloc(1, sizeof *jit);
  if (!jit || !resolve(cpu, &jit->cpu, &jit->name, &jit->features)) {
    destroy(jit);
    return no_memory(err), NULL;
  }
  LLVMErrorRef bad = LLVMOrcCreateLLJIT(&jit->lljit, LLVMOrcCreateLLJITBuilder());
  if (bad) {
    fail(err, bad, "starting LLVM's JIT");
    jit->lljit = NULL;
    destroy(jit);
    return NULL;
  }
  return jit;
}

static char *text(const cg_cpu *cpu, const lp_kernel *kernel, bool assembly, tt_error *err) {
  pthread_once(&initialized, initialize);
  cg_cpu known;
  char *name, *features, *result = NULL;
  LLVMTargetMachineRef m = resolve(cpu, &known, &name, &features) ? machine(&known, err) : NULL;
  if (m) {
    em e;
    em_open(&e, &known, kernel->name, err);
    lp_kernel *one = (lp_kernel *)kernel;
    if (build(&e, m, &one, 1, 0)) {
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
  static const cg_llvm_api api = {CG_LLVM_VERSION, create, compile, text, destroy};
  return &api;
}
