/* eval_elementwise.c: the C meanings of the EW rows of ops.def, and of select, cast, bitcast and stop_gradient.
 *
 * A row such as
 *     EW(relu, 1, TT_NUM, SAME, SEL(LT(a, 0), 0, a), ...)
 * becomes one loop for each class of wide numbers (eval.h) that its types need: r_relu on doubles, s_relu on int64_t,
 * u_relu on uint64_t. The macros NEG, LT, ... name the inline functions r_neg, s_neg, u_neg, ... below through CLASS.
 * f32 work is done in double and rounded once, so f32 functions are correctly rounded but for rare ties. */
#include "eval.h"

/* ---- meanings by class */

static inline double r_neg(double a) { return -a; }
static inline double r_abs(double a) { return fabs(a); }
static inline double r_sign(double a) { return (a > 0) - (a < 0); }
static inline double r_add(double a, double b) { return a + b; }
static inline double r_sub(double a, double b) { return a - b; }
static inline double r_mul(double a, double b) { return a * b; }
static inline double r_div(double a, double b) { return a / b; }
static inline double r_fmod(double a, double b) { return fmod(a, b); }

/* Neither branch overflows, so that tiny results keep their digits. */
static inline double r_sigmoid(double a) {
  double e = exp(-fabs(a));
  return a < 0 ? e / (1 + e) : 1 / (1 + e);
}

#define COMPARISONS(p, W)                                          \
  static inline bool p##_eq(W a, W b) { return a == b; }           \
  static inline bool p##_ne(W a, W b) { return a != b; }           \
  static inline bool p##_lt(W a, W b) { return a < b; }            \
  static inline bool p##_le(W a, W b) { return a <= b; }           \
  static inline bool p##_gt(W a, W b) { return a > b; }            \
  static inline bool p##_ge(W a, W b) { return a >= b; }
COMPARISONS(r, double)
COMPARISONS(s, int64_t)
COMPARISONS(u, uint64_t)

/* Integers wrap: the work is done in uint64_t, where wrapping is defined. bits: the width of the type, 1 for bool. */
#define INTEGERS(p, W)                                                                                          \
  static inline W p##_neg(W a) { return (W)(0 - (uint64_t)a); }                                                 \
  static inline W p##_add(W a, W b) { return (W)((uint64_t)a + (uint64_t)b); }                                  \
  static inline W p##_sub(W a, W b) { return (W)((uint64_t)a - (uint64_t)b); }                                  \
  static inline W p##_mul(W a, W b) { return (W)((uint64_t)a * (uint64_t)b); }                                  \
  static inline W p##_not(W a, int bits) { return bits == 1 ? (W)!a : (W)~a; }                                  \
  static inline W p##_and(W a, W b) { return a & b; }                                                           \
  static inline W p##_or(W a, W b) { return a | b; }                                                            \
  static inline W p##_xor(W a, W b) { return a ^ b; }                                                           \
  static inline W p##_shl(W a, W b, int bits) { return (uint64_t)b >= (uint64_t)bits ? 0 : (W)((uint64_t)a << b); }
INTEGERS(s, int64_t)
INTEGERS(u, uint64_t)

static inline int64_t s_abs(int64_t a) { return a < 0 ? s_neg(a) : a; }
static inline int64_t s_sign(int64_t a) { return (a > 0) - (a < 0); }
static inline int64_t s_div(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? s_neg(a) : a / b; }
static inline int64_t s_fmod(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
static inline int64_t s_shr(int64_t a, int64_t b, int bits) { return (uint64_t)b >= (uint64_t)bits ? (a < 0 ? -1 : 0) : a >> b; }
static inline uint64_t u_abs(uint64_t a) { return a; }
static inline uint64_t u_sign(uint64_t a) { return a > 0; }
static inline uint64_t u_div(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
static inline uint64_t u_fmod(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }
static inline uint64_t u_shr(uint64_t a, uint64_t b, int bits) { return b >= (uint64_t)bits ? 0 : a >> b; }

#define PASTE_(p, f) p##_##f
#define PASTE(p, f) PASTE_(p, f)
#define M(f) PASTE(CLASS, f)
#define NEG(a) M(neg)(a)
#define ABS(a) M(abs)(a)
#define SIGN(a) M(sign)(a)
#define FN(f, ...) f(__VA_ARGS__)
#define SIGMOID(a) r_sigmoid(a)
#define ADD(a, b) M(add)(a, b)
#define SUB(a, b) M(sub)(a, b)
#define MUL(a, b) M(mul)(a, b)
#define DIV(a, b) M(div)(a, b)
#define FMOD(a, b) M(fmod)(a, b)
#define MAX(a, b) M(max)(a, b)
#define MIN(a, b) M(min)(a, b)
#define NOT(a) M(not)(a, bits)
#define AND(a, b) M(and)(a, b)
#define OR(a, b) M(or)(a, b)
#define XOR(a, b) M(xor)(a, b)
#define SHL(a, b) M(shl)(a, b, bits)
#define SHR(a, b) M(shr)(a, b, bits)
#define EQ(a, b) M(eq)(a, b)
#define NE(a, b) M(ne)(a, b)
#define LT(a, b) M(lt)(a, b)
#define LE(a, b) M(le)(a, b)
#define GT(a, b) M(gt)(a, b)
#define GE(a, b) M(ge)(a, b)
#define SEL(c, a, b) ((c) ? (a) : (b))

/* ---- one loop for each row and class */

typedef void loop_fn(int64_t n, const void *pa, const void *pb, void *py, int bits);
#define LOOP(name, W, Y, meaning)                                                                        \
  static void PASTE(CLASS, name##_loop)(int64_t n, const void *pa, const void *pb, void *py, int bits) { \
    const W *wa = pa, *wb = pb;                                                                          \
    Y *wy = py;                                                                                          \
    for (int64_t i = 0; i < n; i++) {                                                                    \
      W a = wa[i], b = wb[i];                                                                            \
      wy[i] = meaning;                                                                                   \
      (void)a, (void)b;                                                                                  \
    }                                                                                                    \
    (void)bits;                                                                                          \
  }
#define GIVES_SAME(W) W
#define GIVES_BOOLEAN(W) uint64_t

#define CLASS r
#define EW(name, arity, takes, gives, meaning, ...) FOR_##takes(name, gives, meaning)
#define FOR_TT_REAL(name, gives, meaning) LOOP(name, double, GIVES_##gives(double), meaning)
#define FOR_TT_NUM FOR_TT_REAL
#define FOR_TT_ANY FOR_TT_REAL
#define FOR_TT_INT(...)
#define FOR_TT_BITS(...)
#include "ops.def"
#undef CLASS
#undef FOR_TT_REAL
#undef FOR_TT_INT
#undef FOR_TT_BITS

#define CLASS s
#define EW(name, arity, takes, gives, meaning, ...) FOR_##takes(name, gives, meaning)
#define FOR_TT_REAL(...)
#undef FOR_TT_NUM
#undef FOR_TT_ANY
#define FOR_TT_NUM(name, gives, meaning) LOOP(name, int64_t, GIVES_##gives(int64_t), meaning)
#define FOR_TT_ANY FOR_TT_NUM
#define FOR_TT_INT FOR_TT_NUM
#define FOR_TT_BITS FOR_TT_NUM
#include "ops.def"
#undef CLASS
#undef FOR_TT_NUM

#define CLASS u
#define EW(name, arity, takes, gives, meaning, ...) FOR_##takes(name, gives, meaning)
#define FOR_TT_NUM(name, gives, meaning) LOOP(name, uint64_t, GIVES_##gives(uint64_t), meaning)
#include "ops.def"
#undef CLASS
#undef FOR_TT_REAL
#undef FOR_TT_NUM
#undef FOR_TT_ANY
#undef FOR_TT_INT
#undef FOR_TT_BITS

/* The loops of a row, by class; NULL where no type of the class is taken. */
#define FOR_TT_REAL(name) {r_##name##_loop, NULL, NULL}
#define FOR_TT_NUM(name) {r_##name##_loop, s_##name##_loop, u_##name##_loop}
#define FOR_TT_ANY(name) {r_##name##_loop, s_##name##_loop, u_##name##_loop}
#define FOR_TT_INT(name) {NULL, s_##name##_loop, u_##name##_loop}
#define FOR_TT_BITS(name) {NULL, s_##name##_loop, u_##name##_loop}

enum { CHUNK = 512 };

/* Elements i .. i+m-1, by way of m wide numbers each; b is 0 where there is no second argument. */
static inline void piece(const ev_call *c, loop_fn *loop, int64_t i, int64_t m, uint64_t *a, uint64_t *b, uint64_t *y) {
  tt_dtype t = ev_arg(c, 0)->dtype;
  ev_widen(t, c->args[0], i, m, a);
  if (c->n->n_args > 1) ev_widen(t, c->args[1], i, m, b);
  else memset(b, 0, (size_t)m * sizeof *b);
  loop(m, a, b, y, t == TT_BOOL ? 1 : 8 * (int)tt_dtype_size(t));
  ev_narrow(c->n->dtype, y, m, c->out, i);
}

static __attribute__((noinline)) void pieces(const ev_call *c, loop_fn *loop, int64_t n) {
  uint64_t a[CHUNK], b[CHUNK], y[CHUNK];
  for (int64_t i = 0; i < n; i += CHUNK) piece(c, loop, i, n - i < CHUNK ? n - i : CHUNK, a, b, y);
}

/* One element, which is what the evaluator of loops asks for all the time, needs no large frame. */
static tt_status elementwise(const ev_call *c, loop_fn *const loops[3]) {
  loop_fn *loop = loops[ev_class_of(ev_arg(c, 0)->dtype)];
  int64_t n = ev_count(c->n);
  uint64_t a, b, y;
  if (n == 1) piece(c, loop, 0, 1, &a, &b, &y);
  else pieces(c, loop, n);
  return TT_OK;
}

#define EW(name, arity, takes, ...)                                             \
  tt_status eval_##name(const ev_call *c) {                                     \
    static loop_fn *const loops[3] = FOR_##takes(name);                         \
    return elementwise(c, loops);                                               \
  }
#include "ops.def"

/* ---- elementwise with types of their own */

tt_status eval_select(const ev_call *c) {
  size_t size = tt_dtype_size(c->n->dtype);
  const uint8_t *condition = c->args[0];
  const char *a = c->args[1], *b = c->args[2];
  char *y = c->out;
  for (int64_t i = 0, n = ev_count(c->n); i < n; i++) memcpy(y + i * size, (condition[i] ? a : b) + i * size, size);
  return TT_OK;
}

/* Real to integer truncates and saturates, as ir_store_double does; an integer to f32, f16, bf16 rounds to f32 at once. */
tt_status eval_cast(const ev_call *c) {
  tt_dtype from = ev_arg(c, 0)->dtype, to = c->n->dtype;
  ev_class source = ev_class_of(from), target = ev_class_of(to);
  union { double d[CHUNK]; int64_t s[CHUNK]; uint64_t u[CHUNK]; } w;
  for (int64_t i = 0, n = ev_count(c->n); i < n; i += CHUNK) {
    int64_t m = n - i < CHUNK ? n - i : CHUNK;
    ev_widen(from, c->args[0], i, m, &w);
    if (source == EV_REAL && target != EV_REAL) {
      for (int64_t k = 0; k < m; k++) ir_store_double(to, c->out, i + k, w.d[k]);
      continue;
    }
    if (source != EV_REAL && target == EV_REAL)
      for (int64_t k = 0; k < m; k++) {
        if (to == TT_F64) w.d[k] = source == EV_SINT ? (double)w.s[k] : (double)w.u[k];
        else w.d[k] = source == EV_SINT ? (float)w.s[k] : (float)w.u[k];
      }
    ev_narrow(to, &w, m, c->out, i);
  }
  return TT_OK;
}

static tt_status same_bytes(const ev_call *c) {
  memcpy(c->out, c->args[0], (size_t)ev_count(c->n) * tt_dtype_size(c->n->dtype));
  return TT_OK;
}
/* A bool is 0 or 1 whatever the byte it is made of was. */
tt_status eval_bitcast(const ev_call *c) {
  if (c->n->dtype != TT_BOOL) return same_bytes(c);
  const uint8_t *x = c->args[0];
  uint8_t *y = c->out;
  for (int64_t i = 0, n = ev_count(c->n); i < n; i++) y[i] = x[i] != 0;
  return TT_OK;
}
tt_status eval_stop_gradient(const ev_call *c) { return same_bytes(c); }
