/* dump.c: codegen's stages of all kernels of a graph as text: loops, LLVM IR, assembly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels.h"

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

char *cg_dump(const ir_graph *g, const char *stage, const cg_cpu *cpu, cg_kernel_watch *kernel, void *user, tt_error *err) {
  bool loops = !strcmp(stage, "loops"), assembly = !strcmp(stage, "asm");
  tt_error ignored = {0};
  if (!err) err = &ignored;
  if (!loops && !assembly && strcmp(stage, "llvm")) return tt_fail(err, TT_INVALID, "error: there is no stage %s\n  at dump\n  fix: use loops, llvm or asm", stage), NULL;
  const cg_llvm_api *api = loops ? NULL : cg_llvm_open(err);
  if (!loops && !api) return NULL;
  cg_kernels ks;
  if (!cg_regions_of(g, &ks, err)) return NULL;
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  bool ok = out;
  for (uint32_t i = 0; ok && i < ks.n_regions; i++) {
    const ir_graph *of = ks.graphs[i];
    const char *name = of->kernels[ks.regions[i]].name;
    const char *comment = loops || assembly ? "#" : ";";
    if (ks.which[i] == CG_SCAN) { fprintf(out, "%s kernel @%s: a scan, the steps of which are\n\n", comment, name); continue; }
    if (ks.which[i] == CG_END) { fprintf(out, "%s the end of scan @%s\n\n", comment, name); continue; }
    if (ks.which[i] == CG_CALL) { fprintf(out, "%s kernel @%s: a call of rt_argsort\n\n", comment, name); continue; }
    ir_ref rows[CG_MAX_ARGUMENTS], row;
    if (cg_kernel_kind(of, ks.regions[i]) == CG_KIND_CONTRACT && cg_blas_wants(of, ks.regions[i], &row)) { fprintf(out, "%s kernel @%s: a call of OpenBLAS (TT_BLAS=0: our own)\n\n", comment, name); continue; }
    double start = now_ms();
    lp_kernel *k = cg_kernel_lower(of, ks.regions[i], cpu, rows, err);
    double lowered = now_ms();
    char *one = !k ? NULL : loops ? lp_print(k) : api->text(cpu, k, assembly, err);
    ok = one != NULL;
    if (ok && kernel) kernel(user, k->name, (int)i + 1, (int)ks.n_regions, (double[]){lowered - start, 0, now_ms() - lowered}, false);
    if (ok && !loops) fprintf(out, "%s kernel @%s\n", comment, name);      /* loops say their name */
    if (ok) fprintf(out, "%s\n", one);
    free(one);
    lp_free(k);
  }
  if (out && fclose(out)) ok = false;
  cg_kernels_free(&ks);
  if (ok) return text;
  free(text);
  tt_fail(err, TT_NO_MEMORY, "error: no memory for the text of @%s\n  at stage %s\n  fix: free memory", g->name, stage);
  return NULL;
}
