/* frontend.h: what the files of frontend/ share. A public op opens a call (which puts the caller's line on the trace's stack of
 * places, checks that its values are values of one trace, and is poison at once when one of them is), emits rows, and returns.
 *
 *     tt_val tt_flip_at(tt_here here, tt_val x, tt_ints axes) {
 *       OPEN("flip", here, x);
 *       if (axes.n > tt_rank(x)) WRONG("name each axis once", "%d axes, but rank %d", axes.n, tt_rank(x));
 *       ...
 *       DONE(ir_reverse(g, x.ref, axis, n));
 *     }
 *
 * The call is closed when its scope is left, however that happens. */
#ifndef TT_FRONTEND_H
#define TT_FRONTEND_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../codegen/codegen.h"
#include "../ir/ir.h"
#include "../passes/passes.h"
#include "tinytorch.h"

enum { TRACE_PLACES = 16, TRACE_SCOPES = 32 };

typedef struct { const char *name; ir_ref ref; tt_dtype dtype; tt_shape shape; tt_init init; tt_param_use use; const char *file; int line; } trace_param;

struct tt_trace {
  ir_graph *g;
  bool training;
  char scope[512];                        /* "encoder/3/attn" */
  size_t scope_length[TRACE_SCOPES];      /* of scope before each push */
  int n_scopes;
  tt_here places[TRACE_PLACES];           /* the user's line first, then those of the library's layers */
  int n_places;
  trace_param *params; int n_params, cap_params;
  char **warnings; int n_warnings;
  int64_t n_streams;                      /* random streams given out */
  tt_val position;                        /* where this call's tokens stand, i64[]; {0}: this is no trace of tt_generate */
  int64_t capacity;                       /* of its caches, the smallest; 0: none so far */
  tt_val loss;                            /* what tt_loss has said so far */
  tt_trace *parent;                       /* of a scan's body: the trace that scans */
  tt_trace *bodies, *next_body;           /* of its scans: finished, kept so that what remains of their values is known for what it is */
  ir_ref *captured; int n_captured;       /* of a body: the parent's values that have become inputs after those it was given, in order */
};

/* An open op. g is NULL when there is nothing to do: return poison. */
typedef struct { tt_trace *t; ir_graph *g; const char *op; tt_val args[8]; int n; } tt_call;
tt_call trace_open(const char *op, tt_here here, const tt_val *args, int n);
tt_call trace_open_empty(const char *op, tt_here here, tt_trace *t);      /* an op of no values */
void trace_close(tt_call *c);
/* "op(%a, %b): <format>", "at FILE:LINE in SCOPE: %a is ...", "fix: ..."; poison. */
tt_val trace_wrong(const tt_call *c, const char *fix, const char *format, ...) TT_PRINTF(3, 4);
void trace_warn(tt_trace *t, const char *format, ...) TT_PRINTF(2, 3);
char *trace_place(const ir_graph *g, uint32_t origin, char *text, size_t size);       /* "mlp.c:14 in mlp/fc1": the first cell */
bool trace_axis(const tt_call *c, int axis, int rank, int *out);          /* negative axes made positive; false: the error is recorded */
int trace_axes(const tt_call *c, tt_val x, tt_ints axes, int *out);       /* how many; all when there are none; -1: error recorded */
bool trace_broadcasts(const tt_shape *a, const tt_shape *b, tt_shape *out);
bool trace_is(tt_val v);                                                  /* given, for optional values */
ir_ref trace_scalar_input(tt_trace *t, const char *name, tt_dtype dtype); /* seed, step, made on demand; none in a scan's body: an error */
ir_ref trace_capture(tt_trace *t, ir_ref outer, const char *name);        /* scan.c */
tt_val trace_text(tt_call *c, const char *text, const char *const *names, const tt_val *vals, const double *numbers, int n);  /* pass_build_text; vals[i] {0}: numbers[i] */

/* tuned.c: files of measured plans. The default is TT_TUNED, else tinytorch/tuned in $XDG_CONFIG_HOME or ~/.config; "none" is no file.
 * tuned_for: NULL in *tunings when there are no plans; the default file may be missing, and its plans of other CPUs are passed over. */
const char *tuned_default(char *path, size_t size);                       /* NULL: there is no home */
tt_status tuned_read(pass_tunings *ts, const char *path, bool may_lack, tt_error *err);
bool tuned_note(const pass_tunings *ts, const char *path, char *text, size_t size);      /* the warning when a file has no plans of this CPU; false: it has */
tt_status tuned_for(const char *named, const cg_cpu *cpu, pass_tunings **tunings, tt_error *err);
/* compile.c: the graph behind the pass `last` (NULL: behind all), for a CPU that need not be this one. err is not NULL. */
tt_status compile_scheduled(const ir_graph *g, const tt_compile_options *o, const char *last, ir_graph **ready, tt_error *err);

/* weights.c: a file of weights; names may be NULL, and must outlive it. read: the parameter `name` in type t and shape s, or an error. published: the row of a name, and in `to` what it
 * is called there; NULL: none. */
typedef struct weights_file weights_file;
weights_file *weights_open(const char *path, const tt_weight_name *names, bool averages, tt_error *err);      /* averages: NAME.ema in the place of NAME, where there is one */
void weights_close(weights_file *w);
tt_tensor *weights_read(weights_file *w, const char *name, tt_dtype t, const tt_shape *s, tt_error *err);
const tt_weight_name *weights_published(const tt_weight_name *names, const char *name, char *to, size_t size);

/* model.c: the model's graph for `rows` more tokens i32 [1,rows] at position: i64[]; outputs logits. capacity: how many tokens its caches hold. */
tt_status model_trace_rows(tt_model *m, int64_t rows, ir_graph **graph, int64_t *capacity, tt_error *err);
tt_status model_compile_graph(tt_model *m, const ir_graph *g, rt_program **program, tt_error *err);

/* model.c: what the model compiles for; NULL where it was not said. */
typedef struct { const char *name, *backend, *cpu, *products, *skip; } model_target;
model_target model_target_of(const tt_model *m);

#define OPEN(op_, here_, ...) \
  __attribute__((cleanup(trace_close))) tt_call call = \
    trace_open(op_, here_, (const tt_val[]){__VA_ARGS__}, (int)(sizeof((const tt_val[]){__VA_ARGS__}) / sizeof(tt_val))); \
  if (!call.g) return (tt_val){call.t, 0}; \
  ir_graph *g = call.g; \
  (void)g
#define WRONG(fix, ...) return trace_wrong(&call, fix, __VA_ARGS__)
#define DONE(r) return (tt_val){call.t, (r)}
#define AXIS(var, axis, x) \
  int var; \
  if (!trace_axis(&call, axis, tt_rank(x), &var)) DONE(0)

/* nn/init.c: tt_init_fill on all threads of a team (NULL: the caller alone); the same bits. */
tt_status init_fill(rt_team *team, tt_init init, const char *name, uint64_t seed, tt_dtype t, const tt_shape *s, void *out, tt_error *err);

#endif
