/* ir.h: the graph.
 *
 *     func @mlp(%x: f32[64,784], param %w1: f32[784,128]) -> f32[64,128] {
 *       %z = matmul(%x, %w1) : f32[64,128]      # mlp.c:14 fc1
 *       %h = relu(%z) : f32[64,128]             # mlp.c:15
 *       return %h
 *     }
 *
 * A node is a row: an op of ops.def, operands that are numbers of earlier rows, attributes, and the
 * type and shape that follow from them. Rows live in an arena of the graph and never move or change;
 * row 0 is poison. ir_emit makes all of them: it checks and infers, folds constants, applies the
 * rules that simplify, looks for an equal row, and only then appends. A pass marks what is needed
 * and makes it again in a new graph; there is no mutation.
 *
 * Mistakes are sticky: the first is kept in g->error, the call that made it returns row 0, and every
 * later call with a poisoned operand returns row 0 without another word. */
#ifndef TT_IR_H
#define TT_IR_H

#include "types.h"

typedef uint32_t ir_ref;

typedef enum {
  IR_poison,
#define EW(name, ...) IR_##name,
#define OP(name, ...) IR_##name,
#define COMPOSITE(name, ...) IR_##name,
#include "ops.def"
  IR_N_OPS
} ir_op;

typedef enum { IR_LEAF, IR_ELEMENTWISE, IR_MOVEMENT, IR_REDUCTION, IR_CONTRACTION, IR_INDEX, IR_CONTROL, IR_EFFECT, IR_COMPOSITE } ir_kind;
typedef enum { IR_ATTR_END, IR_ATTR_INT, IR_ATTR_FLOAT, IR_ATTR_INTS, IR_ATTR_TYPE, IR_ATTR_STR, IR_ATTR_DATA, IR_ATTR_FUNC } ir_attr_kind;

typedef struct {
  const char *name;
  int8_t arity;               /* -1: one or more */
  bool ew;                    /* an EW row: arguments of one type and shape */
  bool gives_bool;
  uint8_t kind;               /* ir_kind; select, cast, bitcast, stop_gradient are IR_ELEMENTWISE too */
  int takes;                  /* set of types */
  struct { const char *name; uint8_t kind; } attrs[8];
  const char *gradients[3];   /* EW rows: text, one an argument */
  const char *meaning;        /* EW rows: the C meaning, as text for docs/ops.md */
} ir_op_info;
extern const ir_op_info ir_ops[IR_N_OPS];           /* ops.c */
TT_API ir_op ir_op_by_name(const char *name, size_t length);   /* IR_poison when there is none */

/* Where a node came from: a list, one cell for each place whose op became part of it. */
typedef struct { const char *file; int line; const char *scope; uint32_t next; } ir_origin;

typedef struct {
  uint16_t op;
  uint8_t dtype, rank;
  uint32_t n_args, n_words;
  uint32_t region;            /* kernel it belongs to: index into g->kernels; 0 is none */
  uint32_t origin;            /* first cell in g->origins; 0 is none */
  const ir_ref *args;
  const int64_t *words;       /* attributes, encoded in the order of the row of ops.def: INT, TYPE, STR, DATA one
                                 word (value, tt_dtype, interned string, blob number), FLOAT the bits of a double,
                                 INTS a count and the values, FUNC a number in g->functions */
  int64_t dim[TT_MAX_RANK];
  int64_t place;              /* offset in the arena where memory put it, or IR_UNPLACED */
  const char *name;           /* for printing: without %; NULL: a number is given */
} ir_node;
enum { IR_UNPLACED = -1, IR_MAX_DEPTH = 4 };

/* A kernel: a run of rows with one region, and its plan as named lists of numbers. */
typedef struct {
  const char *name;
  ir_ref first, last;               /* its rows, kept by the builder; 0: none yet */
  uint32_t n_plan;
  struct { const char *name; uint32_t n; const int64_t *values; } plan[8];
} ir_kernel;

typedef struct { const void *data; size_t bytes; } ir_blob;
typedef struct { const char *name; ir_ref value; } ir_output;

typedef struct ir_graph {
  const char *name;
  ir_node **blocks;                 /* IR_BLOCK rows each, so that rows never move */
  uint32_t n_nodes, cap_blocks;     /* rows 0 .. n_nodes-1; row 0 is poison */
  ir_origin *origins; uint32_t n_origins, cap_origins;      /* cell 0 is none */
  ir_kernel *kernels; uint32_t n_kernels, cap_kernels;      /* kernel 0 is none */
  ir_blob *blobs; uint32_t n_blobs, cap_blobs;
  struct ir_graph **functions; uint32_t n_functions, cap_functions;   /* what scans call; shared with other graphs, so never changed */
  ir_output *outputs; uint32_t n_outputs, cap_outputs;      /* what the function returns, in order */
  ir_ref *effects; uint32_t n_effects, cap_effects;         /* its assigns, in order */
  int64_t arena_bytes;              /* memory's result: bytes of the arena for all placed rows */
  tt_error error;                   /* the first mistake */

  /* state of the builder: what the next rows get */
  uint32_t holders;                 /* graphs that have this one among their functions */
  bool called;                      /* by scans: its leaves are what they give it, read or not */
  uint32_t depth;                   /* of functions in functions: 0 where there is none, at most IR_MAX_DEPTH */
  struct ir_graph *(*replaced)[2]; uint32_t n_replaced;     /* a function [0] of another graph comes in as [1]: what passes make of functions */
  uint32_t at_origin;               /* origin of new rows */
  uint32_t at_region;               /* region of new rows; different regions never merge */
  bool plain;                       /* append as told: no folding, no rules, no dedupe (the parser) */
  ir_ref (*rules)(struct ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words);
                                    /* passes/rewrite.c sets it: returns a row to use instead, or 0 */
  struct ir_store *store;           /* arena, string table, hash of rows: graph.c */
} ir_graph;

#define IR_BLOCK 1024
static inline ir_node *ir_at(const ir_graph *g, ir_ref r) { return &g->blocks[r / IR_BLOCK][r % IR_BLOCK]; }
static inline tt_shape ir_shape(const ir_graph *g, ir_ref r) {
  const ir_node *n = ir_at(g, r);
  tt_shape s = {.rank = n->rank};
  for (int i = 0; i < n->rank; i++) s.dim[i] = n->dim[i];
  return s;
}

/* graph.c */
TT_API ir_graph *ir_graph_new(const char *name);          /* NULL when there is no memory */
TT_API void ir_graph_free(ir_graph *g);                   /* NULL is fine */
void *ir_alloc(ir_graph *g, size_t bytes);                /* zeroed, lives as long as the graph */
const char *ir_intern(ir_graph *g, const char *text);     /* equal texts give equal pointers */
const char *ir_intern_n(ir_graph *g, const char *text, size_t n);
TT_API ir_ref ir_emit(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words);
uint32_t ir_origin_add(ir_graph *g, const char *file, int line, const char *scope, uint32_t next);
uint32_t ir_origin_join(ir_graph *g, uint32_t a, uint32_t b);       /* union, in order, without repeats */
uint32_t ir_origin_copy(ir_graph *to, const ir_graph *from, uint32_t origin);
TT_API void ir_output_add(ir_graph *g, const char *name, ir_ref value);
uint32_t ir_kernel_add(ir_graph *g, const char *name);              /* a new region */
void ir_kernel_plan(ir_graph *g, uint32_t kernel, const char *name, const int64_t *values, uint32_t n);   /* set or replace */
const int64_t *ir_kernel_get(const ir_graph *g, uint32_t kernel, const char *name, uint32_t *n);          /* NULL when absent */
int64_t ir_function_add(ir_graph *g, ir_graph *function);           /* its number, for a FUNC word; from now on shared, and freed with its last holder; -1: no memory */
int64_t ir_blob_add(ir_graph *g, const void *data, size_t bytes);   /* its number, for a DATA word; copies; equal bytes are one; -1: no memory */
void ir_name(ir_graph *g, ir_ref r, const char *name);              /* names the row unless it has a name or the name is taken */
const char *ir_label(const ir_graph *g, ir_ref r, char *text, size_t size);   /* "%name" or "%12", for messages; returns text */
TT_API ir_ref ir_find(const ir_graph *g, const char *name);         /* input or param of that name, or 0 */
/* The mistake of building row `op`: "error: op(%a, %b): <format>", "at FILE:LINE in SCOPE: %a is f32[..] (..)", "fix: ..."; returns 0. */
ir_ref ir_mistake(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const char *fix, const char *format, ...) TT_PRINTF(6, 7);
static inline ir_ref ir_poisoned(tt_status status) { return (void)status, 0; }
#define tt_bug(g, ...) ir_poisoned(tt_fail(&(g)->error, TT_INTERNAL, __VA_ARGS__))   /* our own mistake; poison */

/* fold.c: true when the row need not be made: *result is a constant, or a broadcast of one, or 0 after a mistake. */
bool ir_fold_constants(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, tt_dtype t, const tt_shape *s, ir_ref *result);

/* Attributes by name; the name must be of the op's row. */
int64_t ir_int(const ir_node *n, const char *name);                 /* INT, TYPE, DATA */
double ir_float(const ir_node *n, const char *name);
const int64_t *ir_ints(const ir_node *n, const char *name, int *count);
const char *ir_str(const ir_node *n, const char *name);

/* attrs.c: the words are what the op's row in ops.def asks for. */
bool ir_words_ok(const ir_graph *g, ir_op op, const int64_t *words, uint32_t n_words);

/* infer.c: type and shape of a row from its arguments and attributes; a mistake goes to g->error. */
bool ir_infer(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, tt_dtype *dtype, tt_shape *shape);

/* walk.c: what passes share.
 * ir_live marks the rows that outputs and effects need, and the leaves of a function that scans call (g->n_nodes bools, caller frees).
 * ir_rebuild makes row r of `in` again in `out` with its operands looked up in map, its origin and name kept
 * (names only when free), and returns it. It is the body of most passes. A pass that keeps kernels sets at_region itself.
 * ir_finish copies name, outputs and effects through map, and whether scans call it. */
ir_graph *ir_clone(const ir_graph *g);                              /* the same rows by number, kernels and places too; NULL: no memory */
bool *ir_live(const ir_graph *g);
ir_ref ir_rebuild(const ir_graph *in, ir_graph *out, ir_ref r, const ir_ref *map);
void ir_finish(const ir_graph *in, ir_graph *out, const ir_ref *map);
uint32_t *ir_use_counts(const ir_graph *g, const bool *live);       /* by live rows, outputs and effects; caller frees */

/* build.c: typed constructors, the way passes, decompositions and the frontend write graphs. ir_ew1/2 and ir_select
 * broadcast their arguments as NumPy does, by explicit broadcast rows. Axes may be negative in all of them. */
TT_API ir_ref ir_input(ir_graph *g, const char *name, tt_dtype t, tt_shape s);
TT_API ir_ref ir_param(ir_graph *g, const char *name, tt_dtype t, tt_shape s, bool trainable);
TT_API ir_ref ir_const(ir_graph *g, tt_dtype t, tt_shape s, const void *data);      /* copies */
TT_API ir_ref ir_scalar(ir_graph *g, tt_dtype t, double value);                     /* rank 0 */
ir_ref ir_scalar_int(ir_graph *g, tt_dtype t, int64_t value);
ir_ref ir_full(ir_graph *g, tt_dtype t, tt_shape s, double value);                  /* a broadcast scalar */
ir_ref ir_like(ir_graph *g, ir_ref x, double value);                                /* a rank-0 constant of x's type */
bool ir_is_splat(const ir_graph *g, ir_ref r, double *value);                       /* a constant, or a broadcast of one, all elements equal */
TT_API ir_ref ir_iota(ir_graph *g, tt_dtype t, tt_shape s, int axis);
TT_API ir_ref ir_random(ir_graph *g, ir_ref seed, ir_ref step, tt_shape s, int64_t stream);
TT_API ir_ref ir_ew1(ir_graph *g, ir_op op, ir_ref a);
TT_API ir_ref ir_ew2(ir_graph *g, ir_op op, ir_ref a, ir_ref b);
TT_API ir_ref ir_select(ir_graph *g, ir_ref c, ir_ref a, ir_ref b);
TT_API ir_ref ir_cast(ir_graph *g, ir_ref a, tt_dtype t);                           /* a itself when it has that type */
ir_ref ir_bitcast(ir_graph *g, ir_ref a, tt_dtype t);
ir_ref ir_stop_gradient(ir_graph *g, ir_ref a);
TT_API ir_ref ir_reshape(ir_graph *g, ir_ref a, tt_shape s);                        /* one dim may be -1 */
TT_API ir_ref ir_permute(ir_graph *g, ir_ref a, const int *perm);                   /* rank(a) of them */
TT_API ir_ref ir_transpose(ir_graph *g, ir_ref a, int axis0, int axis1);
TT_API ir_ref ir_broadcast_to(ir_graph *g, ir_ref a, tt_shape s);                   /* NumPy's rule */
ir_ref ir_broadcast(ir_graph *g, ir_ref a, tt_shape s, const int *dims);
ir_ref ir_expand_dims(ir_graph *g, ir_ref a, int axis);                             /* a new axis of 1 */
ir_ref ir_slice(ir_graph *g, ir_ref a, const int64_t *start, const int64_t *stop, const int64_t *step);
TT_API ir_ref ir_slice_axis(ir_graph *g, ir_ref a, int axis, int64_t start, int64_t stop, int64_t step);
TT_API ir_ref ir_pad(ir_graph *g, ir_ref a, ir_ref value, const int64_t *lo, const int64_t *hi, const int64_t *interior);
TT_API ir_ref ir_concat(ir_graph *g, const ir_ref *xs, int n, int axis);
ir_ref ir_reverse(ir_graph *g, ir_ref a, const int *axes, int n);
ir_ref ir_unfold(ir_graph *g, ir_ref a, int axis, int64_t size, int64_t stride, int64_t dilation);
ir_ref ir_fold(ir_graph *g, ir_ref a, int axis, int64_t length, int64_t stride, int64_t dilation);
TT_API ir_ref ir_reduce(ir_graph *g, ir_op op, ir_ref a, const int *axes, int n, bool keep);  /* sum prod amax amin; n = 0 with axes NULL: all; keep: axes stay as 1 */
ir_ref ir_mean(ir_graph *g, ir_ref a, const int *axes, int n, bool keep);
ir_ref ir_arg(ir_graph *g, ir_op op, ir_ref a, int axis);                           /* argmax argmin */
ir_ref ir_cumsum(ir_graph *g, ir_ref a, int axis, bool exclusive, bool reversed);
TT_API ir_ref ir_matmul(ir_graph *g, ir_ref a, ir_ref b, bool ta, bool tb, int64_t split);    /* leading axes equal */
typedef struct { int64_t stride[3], lo[3], hi[3], dilation[3], x_dilation[3]; int64_t split, winograd; } ir_conv_attrs;  /* zeros where 1 is the neutral value count as 1 */
ir_ref ir_conv(ir_graph *g, ir_ref x, ir_ref w, const ir_conv_attrs *attrs);
ir_ref ir_winograd(ir_graph *g, ir_ref x, ir_ref u, int64_t tile, const int64_t *size);        /* size: O, H, W */
/* attention. first: where mask and length stand among the arguments. q and its like get the same options; mask and length may be 0. */
typedef struct { double scale; bool causal; ir_ref mask, length; } ir_attention_options;
static inline bool ir_is_attention(ir_op op) { return op >= IR_attention && op <= IR_attention_dv; }
static inline int ir_attention_first(ir_op op) { return op <= IR_attention_lse ? 3 : 6; }
ir_attention_options ir_attention_of(const ir_node *n);                             /* as row n has them */
TT_API ir_ref ir_attention(ir_graph *g, ir_op op, const ir_ref *args, const ir_attention_options *o);   /* args: 3 of attention and attention_lse, else 6 */
ir_ref ir_gather(ir_graph *g, ir_ref x, ir_ref index, int axis);
ir_ref ir_scatter_add(ir_graph *g, ir_ref x, ir_ref index, ir_ref src, int axis);
ir_ref ir_argsort(ir_graph *g, ir_ref x, int axis, bool descending);
ir_ref ir_dynamic_slice(ir_graph *g, ir_ref x, ir_ref start, const int64_t *sizes);
ir_ref ir_dynamic_update_slice(ir_graph *g, ir_ref x, ir_ref u, ir_ref start);
/* Result `result` of a scan; see ops.def. */
typedef struct { int64_t body, carries, xs, length, reversed, result; } ir_scan_attrs;
TT_API ir_ref ir_scan(ir_graph *g, const ir_ref *args, uint32_t n_args, ir_scan_attrs a);
ir_scan_attrs ir_scan_of(const ir_node *n);
ir_graph *ir_scan_body(const ir_graph *g, const ir_node *n);
bool ir_same_attention(const ir_graph *g, ir_ref a, ir_ref b);                      /* attention and attention_lse, or derivatives, of the same arguments */
bool ir_same_scan(const ir_graph *g, ir_ref a, ir_ref b);                           /* two results of one scan */
ir_ref ir_leaf(const ir_graph *g, uint32_t i);                                      /* the i-th input or param of a function, 0: it has fewer */
ir_ref ir_next_value(const ir_graph *g, ir_ref param);                              /* what is assigned to it; 0: nothing */
TT_API ir_ref ir_assign(ir_graph *g, ir_ref param, ir_ref value);                   /* appended to g->effects */
ir_ref ir_softmax(ir_graph *g, ir_op softmax_or_log_softmax, ir_ref x, int axis);
ir_ref ir_gelu(ir_graph *g, ir_ref x, bool tanh);
ir_ref ir_silu(ir_graph *g, ir_ref x);
ir_ref ir_layer_norm(ir_graph *g, ir_ref x, ir_ref w, ir_ref b, int axes, double eps);
ir_ref ir_batch_mean(ir_graph *g, ir_ref x);
ir_ref ir_batch_var(ir_graph *g, ir_ref x);
ir_ref ir_batch_norm(ir_graph *g, ir_ref x, ir_ref w, ir_ref b, double eps);
ir_ref ir_dropout(ir_graph *g, ir_ref x, ir_ref seed, ir_ref step, double p, int64_t stream);
ir_ref ir_pool(ir_graph *g, ir_op max_pool_or_avg_pool, ir_ref x, int n_spatial, const int64_t *size, const int64_t *stride, const int64_t *lo, const int64_t *hi, const int64_t *dilation_or_null, bool count_pad);

/* print.c, parse.c: the text form. print, parse, print gives the same bytes. What is left out (dtype and shape, which the type says;
 * flags at their neutral value, such as ta=0), quoted names and comments: text.h. types of a function without outputs: "()".
 *
 *   module   := {func} func                                         (functions that scans call stand before those that call them)
 *   func     := "func" "@"name "(" [arg {"," arg}] ")" "->" types ["arena" "=" INT] "{" {row | kernel} {assign} "return" [ret {"," ret}] "}"
 *   arg      := ["param" | "state"] "%"name ":" type            (input; trainable param; param that is not trained)
 *   row      := "%"name "=" op "(" ["%"name {"," "%"name}] {"," attr "=" value} ")" ":" type ["@" INT] [origins]
 *   kernel   := "kernel" "@"name "(" refs ")" "->" refs "[" [plan] "]" "{" {row} "}"      refs are derived and checked
 *   assign   := "assign" "(" "%"param "," "%"value ")" [origins]
 *   ret      := ["name" "="] "%"name
 *   value    := INT | FLOAT | TYPE | "string" | "[" numbers "]"       (a const's value: nested in no way, flat row-major; floats print shortest that reads back)
 *             | "@"name                                             (a function)
 *   origins  := "#" FILE ":" LINE [scope] {";" FILE ":" LINE [scope]}  to the end of the line */
TT_API char *ir_print(const ir_graph *g);                                           /* malloc'ed; NULL: no memory */
TT_API ir_graph *ir_parse(const char *text, size_t length, const char *file, tt_error *err);   /* "file:line:column: expected ..., found ..." */

/* verify.c: everything that ir_emit promises, checked again, and that kernels are runs. stage is for the message. */
tt_status ir_verify(const ir_graph *g, const char *stage, tt_error *err);

/* eval.c and eval_*.c: what ops mean. data of arguments and result are dense row-major. Composites have no evaluation here
 * (passes/decompose.c first). Leaves but iota, const and random are the caller's. */
tt_status ir_eval_node(const ir_graph *g, ir_ref r, const void *const *args, void *out, tt_error *err);
/* A whole graph: values[i] is the data of row i for inputs and params (set by the caller), and of every live row afterwards
 * (allocated here, freed by ir_values_free). assigns are left to the caller: args of each effect are among the values. */
TT_API tt_status ir_eval(const ir_graph *g, void **values, tt_error *err);
/* eval_scan.c: all results of the scan that row n is one of, into outs[result]; NULL: not wanted. */
tt_status ir_eval_scan(const ir_graph *g, const ir_node *n, const void *const *args, void *const *outs, tt_error *err);
TT_API void ir_values_free(const ir_graph *g, void **values);    /* frees what ir_eval allocated, and values */
/* eval_winograd.c: the matrices of F(tile x tile, 3x3), row-major: 'B' B^T [tile+2,tile+2], 'G' [tile+2,3], 'A' A^T [tile,tile+2]. */
const double *ir_winograd_matrix(int64_t tile, char which);
/* One element converted: any type to and from double / int64, with the meaning of cast. */
double ir_load_double(tt_dtype t, const void *p, int64_t i);
void ir_store_double(tt_dtype t, void *p, int64_t i, double v);

#endif
