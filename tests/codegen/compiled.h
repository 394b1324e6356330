/* compiled.h: kernels of the loop language to machine code, straight through the LLVM module: no cache. */
#include <stdlib.h>

#include "codegen/codegen.h"

static rt_code *compiled(const cg_llvm_api *api, const cg_cpu *cpu, lp_kernel *const *ks, int n, rt_kernel **code, tt_error *err) {
  cg_compiled *out = calloc((size_t)n, sizeof *out);
  rt_image *images = calloc((size_t)n, sizeof *images);
  rt_code *c = NULL;
  if (api->compile(cpu, ks, n, 2, out, NULL, NULL, err) == TT_OK) {
    for (int i = 0; i < n; i++) images[i] = out[i].image;
    c = rt_code_load(images, n, code, err);
    for (int i = 0; i < n; i++) free(images[i].data);
  }
  free(out), free(images);
  return c;
}
