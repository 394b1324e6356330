/* aot.h: models as object files, to be linked with libtinytorch_rt: runtime/aot.h has what is in them. */
#ifndef TT_CG_AOT_H
#define TT_CG_AOT_H

#include "codegen.h"

typedef struct { const char *cpu; const ir_graph *step, *predict; } cg_variant;      /* graphs scheduled for that CPU; cpu NULL: native; step NULL: predicts only */

/* variants: the most demanding first. state: names of the optimizer's state. name: a word of C, before the functions' names. */
TT_API tt_status cg_object(const char *name, const cg_variant *variants, int n, const char *const *state, int n_state, const char *path, const cg_options *o, tt_error *err);

#endif
