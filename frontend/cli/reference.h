/* reference.h: cases that another framework computed: inputs, attributes, outputs and gradients in a safetensors file
 * each, with the metadata kind, op, attrs (JSON) and family. reference_ops.c says what each op of theirs is in our language;
 * reference.c reads the cases, runs and judges them. */
#ifndef TT_CLI_REFERENCE_H
#define TT_CLI_REFERENCE_H

#include <jansson.h>

#include "../tinytorch.h"

enum { CASE_VALUES = 12 };

typedef struct {
  tt_trace *trace;
  json_t *attrs;
  const char *names[CASE_VALUES];           /* of inputs */
  tt_val values[CASE_VALUES];
  int n;
} reference_case;

/* What the op gives: values and the names of outputs. */
typedef struct { const char *name; tt_val value; } reference_output;
typedef int reference_fn(reference_case *c, reference_output *out);     /* how many outputs */
reference_fn *reference_op(const char *op);                             /* NULL: not in the language */

tt_val reference_in(const reference_case *c, const char *name);         /* {0}: the case has no such input */
double reference_number(const reference_case *c, const char *attr, double otherwise);
bool reference_flag(const reference_case *c, const char *attr);
const char *reference_text(const reference_case *c, const char *attr);
tt_ints reference_ints(const reference_case *c, const char *attr);      /* a number or a list */

typedef struct { int passed, failed, missing; } reference_tally;
/* Every case in the folder: interpreter in f64 and JIT in f32 (for cpu). Prints a table and failures. false: err. */
bool reference_run(const char *folder, const char *cpu, int threads, reference_tally *tally, tt_error *err);

#endif
