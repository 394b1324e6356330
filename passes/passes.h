/* passes.h: graph to graph. Every pass is a row of pipeline.def and a function pass_NAME that reads one graph and emits
 * another; pass_run runs a list of them, and verifies, times and dumps, so that no pass contains any of that. */
#ifndef TT_PASSES_H
#define TT_PASSES_H

#include "../ir/ir.h"

/* What a compilation is for. */
typedef struct {
  bool train;                     /* grad and update run: output 0 is the loss */
  const char *optimizer;          /* row of optim.def, for params that no group names; NULL: they are not updated */
  const char *hyper;              /* "momentum=0.9, weight_decay=5e-4": over the row's defaults */
  struct { const char *pattern, *optimizer, *hyper; } groups[8];   /* params that the pattern fits (pass_group): optimizer NULL freezes them */
  int n_groups;
  bool no_decay_norm_bias;        /* params of less than two axes have weight_decay 0, whatever their group says */
  double ema;                     /* > 0: a running mean of each param that is updated, and of each real one that the graph assigns, NAME.ema */
  double clip_norm;               /* > 0: gradients are scaled so that their global 2-norm is at most this (Pascanu et al. 2013) */
  int accumulate;                 /* > 1: an update takes the mean of so many gradients: params NAME.grad hold the sum of those before the last one */
  bool collect;                   /* with accumulate: this step only adds its gradients to NAME.grad, the last one updates */
  bool gradients;                 /* every param's gradient is also an output, "grad.NAME" */
  int64_t memory_budget;          /* > 0: recompute makes values again until the arena is at most this less memory_fixed; 0: only where it is nearly free */
  int64_t memory_fixed;           /* bytes that a run needs beside the arena: parameters, inputs, outputs, constants, scratch */
  enum { PASS_F32, PASS_BF16, PASS_BF16X6 } products;      /* what f32 products are made of: autocast */
  bool bf16;                      /* the target CPU multiplies bf16 operands */
  int vector_bytes;               /* of the target CPU: 16, 32, 64 */
  int n_registers;                /* vector registers: 16, 32 */
  const char *skip;               /* "layout,fuse": optional passes left out */
  bool body; uint32_t body_steps;  /* the graph is a scan's body; its first leaves change from step to step, so many */
  struct pass_tunings *tunings;   /* plans that tune puts over the cost model's; NULL: none, the pass is left out */
} pass_options;

typedef tt_status pass_fn(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err);

typedef struct { const char *name, *about; pass_fn *run; bool optional; } pass_info;
extern const pass_info pass_table[];        /* in order; ends with a NULL name */

/* Called after every pass (and before the first, with pass "trace"). */
typedef void pass_watch(void *user, const char *pass, const ir_graph *g, double milliseconds);

/* pipeline.c: runs from row `first` to the row named last (NULL: all). Owns nothing of in; *out is new. names: instead of the
 * pipeline, this list "simplify,fuse". */
TT_API tt_status pass_run(const ir_graph *in, ir_graph **out, const char *names, const char *last, const pass_options *options,
                          pass_watch *watch, void *user, tt_error *err);

/* param_group.c: the first group of options that a param falls in, or -1. A pattern is the whole name or its first components ("fc1" is fc1.weight, not fc10.weight), a name
 * with * for any characters ("blocks.*.bias"), or the number of axes: "ndim<2", with <, <=, =, !=, >=, >. */
int pass_group(const pass_options *options, const char *name, int n_axes);
tt_status pass_groups_check(const pass_options *options, tt_error *err);

/* simplify.c: every live row made again in out; what a pass does that has nothing to do. */
tt_status pass_copy(const ir_graph *in, ir_graph *out, tt_error *err);

/* rewrite.c: the rules of rules.def as the graph's emit hook, and small texts as builders of graphs. */
ir_ref rewrite_rules(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words);
ir_ref rewrite_computed(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words);   /* rewrite_computed.c */
typedef struct { const char *name; ir_ref value; bool is_number; double number; } pass_binding;
/* Builds "mul(g, add(y, 1))" with names bound; a number takes the type of the other arguments; arguments broadcast. "c ? a : b"
 * with c a number picks when building. Also the language of optim.def. */
ir_ref pass_build_text(ir_graph *g, const char *text, const pass_binding *names, int n_names);
bool pass_read_number(const char *text, double *value);        /* the whole text is a decimal number; the same in every locale */

/* grad.c: the gradients of sum(y * cotangent) for each of wrt, made in g itself, of the same ops; cotangent 0: y is a scalar and its
 * cotangent is 1. A row that y does not depend on gets zeros. */
TT_API bool pass_vjp(ir_graph *g, ir_ref y, ir_ref cotangent, const ir_ref *wrt, int n, ir_ref *gradients);

/* The same of the sum of all ys[i] * cts[i], each of wrt being a variable of its own; a gradient that nothing adds to is 0. */
bool pass_vjp_of(ir_graph *g, const ir_ref *ys, const ir_ref *cts, int n_ys, const ir_ref *wrt, int n, ir_ref *gradients);
/* scan_grad.c: d[i], where want[i]: what argument i of the scan gets, when its result k gets results[k] (0: nothing). */
void pass_scan_gradient(ir_graph *g, const ir_node *n, const ir_ref *results, const bool *want, ir_ref *d);

/* form.c: what one element of an op costs, in additions; 0 for index arithmetic. Functions (exp, pow, random) are costly: computed once, and not
 * unrolled over a register tile. */
double pass_op_cost(ir_op op);
enum { PASS_COSTLY = 10 };

/* decompose.c: composite row -> primitive rows, in g. */
ir_ref pass_padded(ir_graph *g, ir_ref x, const int64_t *lo, const int64_t *hi, const int64_t *between);      /* x padded with zeros, below a permute */
ir_ref pass_decompose_row(ir_graph *g, ir_op op, const ir_ref *args, const int64_t *words);
/* max_pool of row n once more, its maxima picked by index: x goes through one select, so that its derivative is the first maximum's. */
ir_ref pass_max_pool_by_choice(ir_graph *g, ir_ref x, const ir_node *n);

/* attention.c: attention or one of its derivatives in primitives, with all scores in memory. */
TT_API ir_ref pass_attention_naive(ir_graph *g, ir_op op, const ir_ref *args, const ir_attention_options *o);

/* freeze.c: the kernel runs when params have changed, not in every call. */
bool pass_is_once(const ir_graph *g, uint32_t region);

/* plan.c: what a placed graph has in its arena, and when. A value lives from kernel `first` to kernel `last`, by number in the order in
 * which they run; one that is handed over in place ends before the kernel that takes it. */
typedef struct { ir_ref row; int64_t bytes, offset; int first, last; } pass_value;
typedef struct {
  int n_kernels, n_values;
  uint32_t *regions;              /* of each kernel */
  pass_value *values;             /* by birth */
  int64_t arena_bytes, bound;     /* bound: most bytes alive at once, below which no arena of these values can go */
  int peak;                       /* the first kernel where that is */
} pass_plan;
TT_API pass_plan *pass_plan_of(const ir_graph *g, tt_error *err);
TT_API void pass_plan_free(pass_plan *p);

/* winograd.c: a 3x3 convolution of x [N,1,C,X,Y] with w [1,O,C,3,3] as a winograd row, its output channels in panels; and such a row once more, as windows, products and sums, which have derivatives. */
TT_API ir_ref pass_winograd_conv(ir_graph *g, ir_ref x, ir_ref w, int64_t tile, int64_t panel);
ir_ref pass_winograd_by_steps(ir_graph *g, ir_ref x, ir_ref u, const ir_node *n);

/* window.c: is row `conv` a convolution whose sum is short, so that its kernel reads x without the border? pad: the pad row (0: none) between x and
 * the conv; spatial axis i of what it pads has size[i] elements and stands behind lo[i] zeros. sums: it is the weight gradient of a depthwise one. */
typedef struct { ir_ref pad; bool depthwise, sums, weights, dots; int64_t lo[3], size[3]; } pass_window;
TT_API bool pass_window_of(const ir_graph *g, ir_ref conv, pass_window *w);

/* split.c: is r a sum down the rows of each block of a matrix, that a kernel which goes over these rows can take along the way? The matrix is `base` with its first
 * n_lead axes (blocks * rows) as one and the others (columns) as another; through: it may stand above a reshape. */
typedef struct { ir_ref base; int n_lead; int64_t blocks, rows, columns; } pass_down;
bool pass_down_of(const ir_graph *g, ir_ref r, bool through, pass_down *d);

/* tune.c: measured plans. A table has those of all CPUs; the pass uses those of its own, and adds a hash of them to `used`. */
enum { PASS_ENTRIES = 5 };         /* of one kernel */
typedef struct { const char *name; uint32_t n; int64_t values[2]; } pass_entry;
typedef struct { char cpu[64]; uint64_t key; int n; pass_entry entries[PASS_ENTRIES]; double ratio; char about[200]; } pass_tuning;
typedef struct pass_tunings {
  char cpu[64];                   /* whose plans are used */
  pass_tuning *at; int n, room;
  int mine, n_used;               /* lines of this CPU; kernels that were given a plan */
  uint64_t used;                  /* 0: no plan was used */
} pass_tunings;
TT_API pass_tunings *pass_tunings_new(const char *cpu);                             /* NULL: no memory */
TT_API void pass_tunings_free(pass_tunings *ts);
TT_API tt_status pass_tunings_read(pass_tunings *ts, const char *text, size_t length, const char *path, tt_error *err);     /* adds the lines of a file */
TT_API tt_status pass_tunings_set(pass_tunings *ts, const pass_tuning *t, tt_error *err);       /* for this CPU, in place of what there was */
TT_API char *pass_tunings_text(const pass_tunings *ts);                             /* malloc'ed; NULL: no memory */
TT_API void pass_entries_text(const pass_entry *entries, int n, char *text, size_t size);      /* "tile=[6,16] pack=[1]" */
/* The kernels of a scheduled graph, with the keys that plans are found by; and one of them as a graph of its own: what it reads becomes inputs. */
typedef struct { uint32_t region; int64_t kind; uint64_t key; } pass_kernel;
typedef struct { pass_kernel *at; int n; } pass_kernels;
TT_API pass_kernels *pass_kernels_of(const ir_graph *g, tt_error *err);
TT_API void pass_kernels_free(pass_kernels *ks);
TT_API ir_graph *pass_kernel_alone(const ir_graph *g, uint32_t region, tt_error *err);

/* update.c: state and hyperparameters of an optimizer row. */
typedef struct { const char *name; const char *states; const char *hyper; const char *text; } optim_info;
extern const optim_info optim_table[];      /* ends with a NULL name */

#define PASS(name, ...) pass_fn pass_##name;
#include "pipeline.def"
#undef PASS

#endif
