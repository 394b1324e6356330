/* loops.h: the loop language, between a kernel and machine code.
 *
 *     kernel bias_relu(a: f32, b: f32, out: f32) tasks=64 {
 *       for j in 0..128 vec 32 {
 *         store out[task*128 + j] = relu(add(load a[task*128 + j], load b[j]))
 *       }
 *     }
 *
 * A kernel is a body that runs once for each task in 0..tasks; tasks are independent and any thread may run any of
 * them (the variable `task`, number 0). The body is a tree of statements over typed scalar expressions: loops with
 * constant bounds, locals (single or small arrays of registers), guarded stores, reductions, ifs. Scheduling
 * (loops.c) is a transformation of loops to loops; the evaluator here is what each is checked against.
 *
 * Vectors: `for v ... vec W` says that iterations are independent, but for `reduce` statements into locals declared outside
 * of it, and that they run W at a time. All that depends on v or on locals declared in the loop becomes W lanes wide;
 * everything else stays scalar. W may be several machine vectors (32 floats on AVX2 are four registers): that is
 * how unrolling is said. The last, partial vector is masked (or run one by one where the CPU has no masks).
 *
 * An expression is evaluated at the statement that uses it: locals, and loads of buffers that the kernel writes, have their
 * value of that moment (a row that holds one must not be kept from one statement to the next). Two argument buffers may be
 * the same memory (a result written in place of an argument), element for element: statements run in the order given.
 *
 * Index arithmetic is i64, written with the same ops (add mul div fmod ... on non-negative numbers). */
#ifndef TT_LOOPS_H
#define TT_LOOPS_H

#include "../ir/ir.h"

typedef uint32_t lp_ref;      /* expression: row of lp_kernel.exprs; 0 is none */

typedef enum {
  LX_NONE,
  LX_CONST,    /* imm: the value's bits, of dtype (sign- or zero-extended; F32 the 32 bits; F16/BF16: the f32 bits) */
  LX_VAR,      /* imm: loop variable; i64 */
  LX_LOCAL,    /* imm: local; a[0]: index into its array, constant by the time of emission (0: not an array) */
  LX_LOAD,     /* imm: buffer; a[0]: element index; a[1]: guard (bool, 0 none); a[2]: value when the guard is false (0: zero) */
  LX_OP,       /* op of an EW row, or select, cast, bitcast, on a[]; dtype is the result's */
  LX_FMA,      /* a[0]*a[1]+a[2]: one rounding where the CPU can, two where it can't */
  LX_DOT,      /* a[2] + x0*y0 + x1*y1: f32; a[0], a[1]: u32, two bf16 each, x0 in the low half. One rounding a multiply-add, or the instruction's (vdpbf16ps) */
  LX_PHILOX,   /* a[0]: seed, a[1]: step (u64), a[2]: element index (i64); imm: stream; u16: tt_random_half */
} lx_kind;

typedef struct {
  uint8_t kind, dtype;
  uint16_t op;
  lp_ref a[3];
  int64_t imm;
} lp_expr;

typedef enum {
  LS_FOR,      /* var, begin, end, step, lanes (0 or 1: scalar), unroll (true: expanded before emission), body */
  LS_LOCAL,    /* local declared here; value: what each of its elements starts as */
  LS_SET,      /* local[index] = value */
  LS_REDUCE,   /* local[index] = op(local[index], value); op: add mul max min and or; order of terms is free within the lanes of a vec loop */
  LS_STORE,    /* buffer[index] = value, if guard */
  LS_IF,       /* guard, body: scalar condition */
  LS_TILES,    /* tiles: a block of f32 sums of bf16 pairs, as LX_DOT makes them; index: of its first element, value: of a's, guard: of b's */
  LS_PREFETCH, /* buffer[index], which may lie outside of it, will be read soon: the lines of the lanes go to L1, or (op 2) to L2 */
} ls_kind;

/* c[i*c_stride + j] = sum over p of a[i*a_stride + p] . b[p*b_stride + j], for i < rows (16 or 32), j < lanes (16 or 32), p < pairs (a multiple of 16); add: to what
 * c holds. Numbers of buffers; a, b: u32, c: f32. AMX has the instructions. */
typedef struct { int32_t a, b, c, rows, lanes, pairs; int64_t a_stride, b_stride, c_stride; bool add; } lp_tiles;
enum { LP_STREAM = 1, LP_CHECK = 2 };
typedef struct lp_stmt lp_stmt;
struct lp_stmt {
  uint8_t kind;
  uint8_t unroll;
  uint8_t stream;                 /* LS_STORE: past the caches where whole aligned vectors are stored; LP_CHECK: if the buffer is aligned */
  uint16_t op;
  int32_t var;                    /* LS_FOR */
  int32_t lanes;
  int64_t begin, end, step;       /* end is exclusive */
  int32_t local, buffer;
  lp_ref index, value, guard;
  const lp_tiles *tiles;          /* LS_TILES */
  lp_stmt *body, *next;           /* first statement inside; the statement after */
};

typedef struct { tt_dtype dtype; bool written; const char *name; int64_t count; bool scratch; int32_t again; } lp_buffer;
   /* count: elements (the evaluator checks bounds). scratch: of each thread, `count` elements, not an argument: it lives in
      the scratch pointer, in order, each 64-byte aligned. again: 0, or 1 + the number of another buffer, which this one is once more, as
      elements of another type; scratch is set, and it takes no memory */
typedef struct { tt_dtype dtype; int32_t count; const char *name; } lp_local;

typedef struct lp_kernel {
  const char *name;
  int64_t tasks;
  lp_buffer *buffers; int n_buffers;      /* arguments first, in the order of the call, then scratch */
  lp_local *locals; int n_locals;
  const char **vars; int n_vars;          /* names of loop variables; 0 is "task" */
  int begin;                              /* variable that holds the first task of the present call; 0: none, see lp_begin */
  lp_expr *exprs; uint32_t n_exprs, cap_exprs;   /* equal expressions are one row (they are pure but for loads: see lp_load) */
  lp_stmt *body;
  struct lp_arena *arena;                 /* all of the above lives here */
} lp_kernel;

/* loops.c: making, folding and dedupe (index arithmetic is kept in the form sum of var*const + const, div and mod simplified by the
 * ranges of loop variables), transformations, printer, evaluator. */
lp_kernel *lp_new(const char *name, int64_t tasks);                     /* tasks may be set later, but before lp_var(k, 0) */
void lp_free(lp_kernel *k);
void *lp_alloc(lp_kernel *k, size_t bytes);
int lp_buffer_add(lp_kernel *k, const char *name, tt_dtype t, int64_t count, bool written, bool scratch);
int lp_buffer_again(lp_kernel *k, int buffer, tt_dtype t);            /* `buffer` as whole elements of t; the same number when it is asked for again */
int lp_local_add(lp_kernel *k, const char *name, tt_dtype t, int count);
int lp_var_add(lp_kernel *k, const char *name, int64_t end);           /* range 0..end-1, for simplification */
lp_ref lp_const(lp_kernel *k, tt_dtype t, double v);
lp_ref lp_const_bits(lp_kernel *k, tt_dtype t, int64_t bits);          /* imm as in LX_CONST */
lp_ref lp_int(lp_kernel *k, int64_t v);                                /* i64 */
lp_ref lp_var(lp_kernel *k, int var);
lp_ref lp_begin(lp_kernel *k);                                         /* the first task of this call: scratch that it filled is still there in the later ones */
lp_ref lp_get(lp_kernel *k, int local, lp_ref index);
lp_ref lp_load(lp_kernel *k, int buffer, lp_ref index, lp_ref guard, lp_ref otherwise);
lp_ref lp_op(lp_kernel *k, ir_op op, tt_dtype result, lp_ref a, lp_ref b, lp_ref c);    /* folds and simplifies */
lp_ref lp_fma(lp_kernel *k, lp_ref a, lp_ref b, lp_ref sum);           /* a*b+sum, in the type of sum */
lp_ref lp_dot(lp_kernel *k, lp_ref a, lp_ref b, lp_ref sum);
lp_ref lp_philox(lp_kernel *k, lp_ref seed, lp_ref step, lp_ref index, int64_t stream);
lp_ref lp_add(lp_kernel *k, lp_ref a, lp_ref b);                       /* i64 */
lp_ref lp_mul(lp_kernel *k, lp_ref a, int64_t b);
lp_ref lp_div(lp_kernel *k, lp_ref a, int64_t b);
lp_ref lp_mod(lp_kernel *k, lp_ref a, int64_t b);
bool lp_is_int(const lp_kernel *k, lp_ref e, int64_t *v);
bool lp_affine(const lp_kernel *k, lp_ref e, int var, int64_t *coefficient);   /* e = coefficient*var + rest without var? */
bool lp_depends(const lp_kernel *k, lp_ref e, int var);                /* by name: what a local holds is not looked at */
void lp_range(const lp_kernel *k, lp_ref e, int64_t *lo, int64_t *hi); /* of an i64 expression; INT64_MIN..INT64_MAX: not known */
int64_t lp_var_end(const lp_kernel *k, int var);                       /* as told to lp_var_add */
lp_stmt *lp_stmt_new(lp_kernel *k, ls_kind kind);
typedef struct { lp_stmt **tail; } lp_cursor;                          /* where the next statement goes */
lp_stmt *lp_append(lp_kernel *k, lp_cursor *at, ls_kind kind);
lp_stmt *lp_for(lp_kernel *k, lp_cursor *at, int var, int64_t begin, int64_t end, int lanes, lp_cursor *inside);
lp_ref lp_rebuild(lp_kernel *k, lp_ref e, const lp_ref a[3]);          /* e with other operands */
lp_ref lp_subst(lp_kernel *k, lp_ref e, int var, lp_ref with);
void lp_replace(lp_kernel *k, lp_ref *values, int n, const lp_ref *from, const lp_ref *to, int n_from);   /* each from[i] in values becomes to[i] */
void lp_unroll(lp_kernel *k);                                          /* expands every loop marked unroll */
char *lp_print(const lp_kernel *k);                                    /* malloc'ed */
bool lp_check(const lp_kernel *k, tt_error *err);                      /* types, scopes, bounds of locals */
/* Runs tasks begin..end-1 in plain C. buffers: of the arguments. */
tt_status lp_eval(const lp_kernel *k, void *const *buffers, int64_t begin, int64_t end, tt_error *err);
size_t lp_scratch_bytes(const lp_kernel *k);

#endif
