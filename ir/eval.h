/* eval.h: what the eval_*.c files share: how the meaning of an op is written once for every type.
 *
 * Every element has an exact "wide" form of 8 bytes: real types a double, signed integers an int64_t, unsigned ones and bool
 * a uint64_t. An evaluation widens its arguments, works on wide numbers, and narrows its result: reals round once (f16 and
 * bf16: to f32, then to their type), integers wrap, bool is != 0. For integers wrapping at 64 bits and then narrowing is
 * the same as wrapping in the type. So three instantiations cover all types, and sums of f32 are made in double. */
#ifndef TT_EVAL_H
#define TT_EVAL_H

#include "ir.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const ir_graph *g;
  const ir_node *n;             /* the row */
  const void *const *args;      /* dense data of its arguments */
  void *out;
  tt_error *err;
} ev_call;

typedef enum { EV_REAL, EV_SINT, EV_UINT } ev_class;
typedef tt_status ev_fn(const ev_call *c);

static inline const ir_node *ev_arg(const ev_call *c, uint32_t i) { return ir_at(c->g, c->n->args[i]); }
/* Unsigned, because part of an empty shape may have more elements than an int64_t counts. */
static inline int64_t ev_product(const int64_t *dim, int begin, int end) {
  uint64_t n = 1;
  for (int i = begin; i < end; i++) n *= (uint64_t)dim[i];
  return (int64_t)n;
}
static inline int64_t ev_count(const ir_node *n) { return ev_product(n->dim, 0, n->rank); }
static inline ev_class ev_class_of(tt_dtype t) { return tt_dtype_in(t, TT_REAL) ? EV_REAL : tt_dtype_in(t, TT_SINT) ? EV_SINT : EV_UINT; }
static inline int64_t ev_clamp(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/* eval.c */
void ev_widen(tt_dtype t, const void *from, int64_t begin, int64_t n, void *wide);      /* elements begin .. begin+n-1 */
void ev_narrow(tt_dtype t, const void *wide, int64_t n, void *to, int64_t begin);
void *ev_wide_arg(const ev_call *c, uint32_t i);      /* all of an argument; malloc'ed, NULL and c->err when there is no memory */
void *ev_scratch(const ev_call *c, int64_t n);        /* n wide numbers, zeroed; malloc'ed, likewise */
/* The next index of a shape in row-major order; false after the last. */
bool ev_next(int rank, const int64_t *dim, int64_t *index);

/* The meanings that several files need, for each class of wide numbers: r_ double, s_ int64_t, u_ uint64_t. */
static inline double r_max(double a, double b) { return a != a ? a : b != b ? b : a > b ? a : b; }
static inline double r_min(double a, double b) { return a != a ? a : b != b ? b : a < b ? a : b; }
static inline bool r_above(double a, double b) { return a > b || (a != a && b == b); }     /* NaN is the largest */
static inline int64_t s_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t s_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline bool s_above(int64_t a, int64_t b) { return a > b; }
static inline uint64_t u_max(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t u_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline bool u_above(uint64_t a, uint64_t b) { return a > b; }
#define EV_CALL(f, a, b) _Generic((a), double: r_##f, int64_t: s_##f, uint64_t: u_##f)(a, b)

/* The statements with W the wide type of a class. For sums and products signed integers work as unsigned ones do. */
#define EV_BY_CLASS(cls, ...)                                        \
  do switch (cls) {                                                  \
    case EV_REAL: { typedef double W; __VA_ARGS__ } break;           \
    case EV_SINT: { typedef int64_t W; __VA_ARGS__ } break;          \
    case EV_UINT: { typedef uint64_t W; __VA_ARGS__ } break;         \
  } while (0)
#define EV_FOR_SUMS(cls, ...)                                        \
  do {                                                               \
    if ((cls) == EV_REAL) { typedef double W; __VA_ARGS__ }          \
    else { typedef uint64_t W; __VA_ARGS__ }                         \
  } while (0)

/* eval_elementwise.c ... eval_index.c: one function for each row of ops.def that is not a composite. */
#define EW(name, ...) ev_fn eval_##name;
#define OP(name, ...) ev_fn eval_##name;
#include "ops.def"

#endif
