/* math.c: exp, log, sin and their kin as straight-line polynomial code, for scalars and vectors. Largest errors, found by
 * tests/codegen/math_test.c over samples of the whole range of arguments, in ulp, with or without FMA:
 *
 *     f32   exp 1.2   expm1 1.8   log 0.9   log1p 0.9   sigmoid 2.4   tanh 2.6   erf 3.6   sin 1.4   cos 1.5   tan 2.7
 *           atan 1.7  atan2 1.5   pow 0.6   rsqrt 1.5
 *     f64   exp 1.2   expm1 2.0   log 0.9   log1p 0.9   sigmoid 2.5   tanh 2.6   sin 1.4   cos 1.5    rsqrt 1.5
 *
 * Infinities, NaN, subnormals and -0 are as in C. sin, cos and tan of arguments beyond 1e7 (f32) or 1e6 (f64) go, by a branch, to the
 * C functions of the table, and so do always fmod, and erf, tan, atan, atan2 and pow of f64, lane by lane.
 *
 * Polynomials are minimax by Remez' exchange on the reduced range, for the relative error of the result. The reductions are the classic
 * ones: x = k ln 2 + r (Cody and Waite 1980), log(1+f) through s = f/(2+f) (Ng's in fdlibm), erf as 1 - exp(P(x)). On most CPUs
 * multiplications and FMA have half of the pipes and are what counts. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "llvm.h"

/* ---- through the table of C functions, in f64, lane by lane */

static int table_index(ir_op op) {
  int i = 0;
#define FN1(name) if (op == IR_##name) return i; i++;
#define FN2 FN1
  RT_FUNCTIONS(FN1, FN2)
#undef FN1
#undef FN2
  return -1;
}

/* void each(ptr f, ptr x, ptr y, i64 n): x[i] = f(x[i]) or f(x[i], y[i]), local to the module. */
static em_val each(em *e, int arity, LLVMTypeRef type) {
  const char *name = arity == 1 ? "each1" : "each2";
  em_val f = LLVMGetNamedFunction(e->module, name);
  if (f) return f;
  LLVMTypeRef params[4] = {e->ptr, e->ptr, e->ptr, e->i64};
  f = LLVMAddFunction(e->module, name, LLVMFunctionType(LLVMVoidTypeInContext(e->context), params, 4, false));
  LLVMSetLinkage(f, LLVMInternalLinkage);
  static const char *flags[] = {"nounwind", "noinline"};
  for (int i = 0; i < 2; i++) {
    unsigned kind = LLVMGetEnumAttributeKindForName(flags[i], strlen(flags[i]));
    LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex, LLVMCreateEnumAttribute(e->context, kind, 0));
  }
  LLVMBuilderRef b = LLVMCreateBuilderInContext(e->context);
  LLVMBasicBlockRef entry = LLVMAppendBasicBlockInContext(e->context, f, ""), loop = LLVMAppendBasicBlockInContext(e->context, f, "");
  LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(e->context, f, "");
  LLVMPositionBuilderAtEnd(b, entry);
  LLVMBuildBr(b, loop);
  LLVMPositionBuilderAtEnd(b, loop);
  em_val i = LLVMBuildPhi(b, e->i64, ""), args[2], px = LLVMBuildGEP2(b, e->f64, LLVMGetParam(f, 1), &i, 1, "");
  args[0] = LLVMBuildLoad2(b, e->f64, px, "");
  if (arity == 2) args[1] = LLVMBuildLoad2(b, e->f64, LLVMBuildGEP2(b, e->f64, LLVMGetParam(f, 2), &i, 1, ""), "");
  LLVMBuildStore(b, LLVMBuildCall2(b, type, LLVMGetParam(f, 0), args, (unsigned)arity, ""), px);
  em_val next = LLVMBuildAdd(b, i, em_int(e->i64, 1), "");
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntULT, next, LLVMGetParam(f, 3), ""), loop, done);
  LLVMAddIncoming(i, (em_val[]){em_int(e->i64, 0), next}, (LLVMBasicBlockRef[]){entry, loop}, 2);
  LLVMPositionBuilderAtEnd(b, done);
  LLVMBuildRetVoid(b);
  LLVMDisposeBuilder(b);
  return f;
}

static em_val stack_lanes(em *e, int which) {
  if (e->lanes[which]) return e->lanes[which];
  LLVMBuilderRef b = LLVMCreateBuilderInContext(e->context);
  LLVMPositionBuilderBefore(b, LLVMGetFirstInstruction(LLVMGetEntryBasicBlock(e->function)));
  e->lanes[which] = LLVMBuildAlloca(b, LLVMArrayType2(e->f64, 256), "lanes");
  LLVMSetAlignment(e->lanes[which], 64);
  LLVMDisposeBuilder(b);
  return e->lanes[which];
}

static em_val through_table(em *e, ir_op op, em_val a, em_val b) {
  LLVMBuilderRef m = e->b;
  int arity = b ? 2 : 1, width = em_width(a);
  LLVMTypeRef result = LLVMTypeOf(a), f64 = em_like(a, e->f64), params[2] = {e->f64, e->f64};
  LLVMTypeRef type = LLVMFunctionType(e->f64, params, (unsigned)arity, false);
  em_val index = em_int(e->i64, (uint64_t)table_index(op));
  em_val f = LLVMBuildLoad2(m, e->ptr, LLVMBuildGEP2(m, e->ptr, e->table, &index, 1, ""), ir_ops[op].name);
  em_val args[2] = {a, b}, y;
  for (int i = 0; i < arity; i++) args[i] = result == f64 ? args[i] : LLVMBuildFPExt(m, args[i], f64, "");
  if (!width) {
    y = LLVMBuildCall2(m, type, f, args, (unsigned)arity, "");
  } else {
    em_val place[2] = {stack_lanes(e, 0), stack_lanes(e, arity - 1)};
    for (int i = 0; i < arity; i++) LLVMSetAlignment(LLVMBuildStore(m, args[i], place[i]), 8);
    LLVMTypeRef p[4] = {e->ptr, e->ptr, e->ptr, e->i64};
    em_val all[4] = {f, place[0], place[1], em_int(e->i64, (uint64_t)e->active)};
    LLVMBuildCall2(m, LLVMFunctionType(LLVMVoidTypeInContext(e->context), p, 4, false), each(e, arity, type), all, 4, "");
    y = LLVMBuildLoad2(m, f64, place[0], "");
    LLVMSetAlignment(y, 8);
  }
  return result == f64 ? y : LLVMBuildFPTrunc(m, y, result, "");
}

/* ---- small words for building */

static em_val add(em *e, em_val a, em_val b) { return LLVMBuildFAdd(e->b, a, b, ""); }
static em_val sub(em *e, em_val a, em_val b) { return LLVMBuildFSub(e->b, a, b, ""); }
static em_val mul(em *e, em_val a, em_val b) { return LLVMBuildFMul(e->b, a, b, ""); }
static em_val quotient(em *e, em_val a, em_val b) { return LLVMBuildFDiv(e->b, a, b, ""); }
static em_val num(em_val like, double v) { return em_real(LLVMTypeOf(like), v); }
static em_val negate(em *e, em_val a) { return LLVMBuildFNeg(e->b, a, ""); }
static em_val magnitude(em *e, em_val a) { return em_call(e, "llvm.fabs", LLVMTypeOf(a), a, NULL, NULL); }
static em_val with_sign(em *e, em_val a, em_val of) { return em_call(e, "llvm.copysign", LLVMTypeOf(a), a, of, NULL); }
static em_val pick(em *e, em_val c, em_val a, em_val b) { return LLVMBuildSelect(e->b, c, a, b, ""); }
static em_val cmp(em *e, LLVMRealPredicate p, em_val a, em_val b) { return LLVMBuildFCmp(e->b, p, a, b, ""); }
static em_val below(em *e, em_val a, double v) { return cmp(e, LLVMRealOLT, a, num(a, v)); }
static em_val above(em *e, em_val a, double v) { return cmp(e, LLVMRealOGT, a, num(a, v)); }
static em_val at_most(em *e, em_val a, double v) { return pick(e, above(e, a, v), num(a, v), a); }      /* NaN stays */
static em_val at_least(em *e, em_val a, double v) { return pick(e, below(e, a, v), num(a, v), a); }
static em_val bits_of(em *e, em_val a, LLVMTypeRef i) { return LLVMBuildBitCast(e->b, a, i, ""); }

/* By Horner's rule in x^2, of pairs c0 + c1 x: one multiplication more than in x, and half as long a chain of operations that wait for each other. */
static em_val poly(em *e, em_val x, const double *c, int n) {
  em_val z = n > 2 ? mul(e, x, x) : NULL, y = NULL;
  for (int i = (n - 1) / 2 * 2; i >= 0; i -= 2) {
    em_val pair = i + 1 < n ? em_fma(e, num(x, c[i + 1]), x, num(x, c[i])) : num(x, c[i]);
    y = y ? em_fma(e, y, z, pair) : pair;
  }
  return y;
}
#define POLY(x, ...) poly(e, x, (const double[]){__VA_ARGS__}, (int)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)))

/* Of f32 or f64: the layout of its bits, and ln 2 in two parts, the first with enough zeros that its product with an exponent is exact. */
typedef struct { bool wide; LLVMTypeRef i; int mantissa, bias; double round, ln2_hi, ln2_lo; } format;

static format format_of(em *e, em_val a) {
  LLVMTypeRef t = LLVMTypeOf(a), scalar = em_width(a) ? LLVMGetElementType(t) : t;
  if (scalar == e->f64) return (format){true, em_like(a, e->i64), 52, 1023, 0x1.8p52, 0x1.62e42feep-1, 0x1.a39ef35793c76p-33};
  return (format){false, em_like(a, e->i32), 23, 127, 0x1.8p23, 0x1.62ep-1, 0x1.0bfbe8e7bcd5ep-15};
}

/* Nearest integer of a small number x*by: as a number, and as an int in the low half of k. Adding 1.5*2^mantissa leaves it in the last bits. */
static em_val nearest(em *e, const format *f, em_val x, double by, em_val *k) {
  em_val y = em_fma(e, x, num(x, by), num(x, f->round));
  *k = bits_of(e, y, f->i);
  return sub(e, y, num(x, f->round));
}

/* 2^k of an int k (its low half counts) in the range of normal exponents. */
static em_val power_of_two(em *e, const format *f, em_val k, LLVMTypeRef t) {
  em_val biased = LLVMBuildAdd(e->b, k, em_int(f->i, (uint64_t)f->bias), "");
  return LLVMBuildBitCast(e->b, LLVMBuildShl(e->b, biased, em_int(f->i, (uint64_t)f->mantissa), ""), t, "");
}

/* x = k ln 2 + r */
static em_val reduce_exp(em *e, const format *f, em_val x, em_val *k) {
  em_val n = nearest(e, f, x, 0x1.71547652b82fep0, k), m = negate(e, n);
  return em_fma(e, m, num(x, f->ln2_lo), em_fma(e, m, num(x, f->ln2_hi), x));
}

/* ---- exp and what is made of it */

/* (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2 */
static em_val exp_rest(em *e, const format *f, em_val r) {
  if (f->wide)
    return POLY(r, 0.5, 0.16666666666666677, 0.041666666666666512, 0.0083333333333216672, 0.001388888888896252, 0.00019841269886037237, 2.480158717234531e-05,
                2.7557244294589929e-06, 2.7557402721780989e-07, 2.5109009120414498e-08, 2.0875331884968652e-09);
  return POLY(r, 0.49999997, 0.166665435, 0.0416672006, 0.00836653821, 0.00138825178);
}

/* The power of two is applied in two steps, 2^(k/2) and what is left, so that subnormal results are rounded once; k comes with twice the bias.
 * negative: x is at most 0. */
static em_val exp_below(em *e, em_val x, bool negative) {
  LLVMBuilderRef b = e->b;
  format f = format_of(e, x);
  LLVMTypeRef t = LLVMTypeOf(x);
  if (!negative) x = at_most(e, x, f.wide ? 710 : 89);
  x = at_least(e, x, f.wide ? -746 : -104);
  f.round += 2 * f.bias;
  em_val k, shift = em_int(f.i, (uint64_t)f.mantissa), r = reduce_exp(e, &f, x, &k), both = LLVMBuildShl(b, k, shift, "");
  em_val low = LLVMBuildShl(b, LLVMBuildLShr(b, k, em_int(f.i, 1), ""), shift, ""), high = LLVMBuildSub(b, both, low, "");
  em_val more = em_fma(e, mul(e, r, r), exp_rest(e, &f, r), r), scale = LLVMBuildBitCast(b, low, t, "");       /* e^r - 1 */
  return mul(e, em_fma(e, more, scale, scale), LLVMBuildBitCast(b, high, t, ""));
}

static em_val exp_of(em *e, em_val x) { return exp_below(e, x, false); }

static em_val expm1_of(em *e, em_val a) {
  format f = format_of(e, a);
  LLVMTypeRef t = LLVMTypeOf(a);
  em_val x = f.wide ? at_least(e, at_most(e, a, 710), -40) : at_least(e, at_most(e, a, 89), -18);
  em_val k, r = reduce_exp(e, &f, x, &k);
  em_val p = em_fma(e, mul(e, r, r), exp_rest(e, &f, r), r);
  em_val scale = power_of_two(e, &f, LLVMBuildSub(e->b, k, em_int(f.i, 1), ""), t);      /* half of 2^k, which may be too large */
  em_val y = em_fma(e, scale, p, sub(e, scale, num(a, 0.5)));
  return pick(e, below(e, magnitude(e, a), f.wide ? 0x1p-54 : 0x1p-25), a, add(e, y, y));
}

/* 1 / (1 + x) or x / (1 + x) with x = e^-|a| <= 1: the larger of x and what a >= 0 makes of 1. NaN is in the denominator. */
static em_val sigmoid(em *e, em_val a) {
  em_val one = num(a, 1), x = exp_below(e, negate(e, magnitude(e, a)), true), top = pick(e, below(e, a, 0), num(a, 0), one);
  return quotient(e, pick(e, cmp(e, LLVMRealOGT, x, top), x, top), add(e, one, x));
}

/* m = e^2|x| - 1: tanh |x| = m / (m + 2) */
static em_val tanh_of(em *e, em_val a) {
  em_val x = at_most(e, magnitude(e, a), 22), m = expm1_of(e, add(e, x, x));
  return with_sign(e, quotient(e, m, add(e, m, num(a, 2))), a);
}

/* 1 - e^p with p = log(erfc |x|) = |x| Q(|x|): an error in p is not made larger by it. */
static em_val erf_of(em *e, em_val a) {
  format f = format_of(e, a);
  em_val x = at_most(e, magnitude(e, a), 4), k;
  em_val p = mul(e, x, POLY(x, -1.12837923, -0.636619389, -0.102777831, 0.0191530641, 0.000160395895, -0.00166702725, 0.000632836716, -0.000117641219, 9.25625864e-06));
  em_val r = reduce_exp(e, &f, p, &k), minus_scale = negate(e, power_of_two(e, &f, k, LLVMTypeOf(a)));
  em_val y = em_fma(e, minus_scale, em_fma(e, mul(e, r, r), exp_rest(e, &f, r), r), add(e, num(a, 1), minus_scale));
  return with_sign(e, y, a);
}

/* ---- logarithms */

/* log of a normal positive x, plus what `missing` stands for: log(x + missing*x); k_more is added to the exponent. */
static em_val log_normal(em *e, const format *f, em_val x, em_val missing, em_val k_more) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef t = LLVMTypeOf(x);
  em_val u = bits_of(e, x, f->i), root_half = em_int(f->i, f->wide ? 0x3fe6a09e667f3bcd : 0x3f3504f3), k, kr;
  em_val from = LLVMBuildSub(b, u, root_half, ""), shift = em_int(f->i, (uint64_t)f->mantissa);
  if (f->wide) {      /* there is no arithmetic shift of 64 bits before AVX-512 */
    k = LLVMBuildLShr(b, LLVMBuildAdd(b, from, em_int(f->i, (uint64_t)1100 << 52), ""), shift, "");
    k = LLVMBuildSub(b, k, em_int(f->i, 1100), "");
  } else {
    k = LLVMBuildAShr(b, from, shift, "");
  }
  em_val m = LLVMBuildBitCast(b, LLVMBuildSub(b, u, LLVMBuildShl(b, k, shift, ""), ""), t, "");      /* sqrt(1/2) <= m < sqrt(2) */
  if (k_more) k = LLVMBuildAdd(b, k, k_more, "");
  if (f->wide) {
    em_val magic = LLVMConstBitCast(num(x, f->round), f->i);
    kr = sub(e, LLVMBuildBitCast(b, LLVMBuildAdd(b, k, magic, ""), t, ""), num(x, f->round));
  } else {
    kr = LLVMBuildSIToFP(b, k, t, "");
  }
  em_val g = sub(e, m, num(x, 1)), s = quotient(e, g, add(e, g, num(x, 2))), z = mul(e, s, s), half = mul(e, mul(e, g, g), num(x, 0.5));
  em_val rest = !f->wide ? POLY(z, 0.666667759, 0.399772853, 0.298791677)
                         : POLY(z, 0.66666666666667374, 0.39999999999394614, 0.28571428747272248, 0.22222198031885185, 0.18183594405400857,
                                0.15313233978115875, 0.14804566657664614);
  em_val low = mul(e, kr, num(x, f->ln2_lo));
  if (missing) low = add(e, low, missing);
  em_val inner = em_fma(e, s, em_fma(e, z, rest, half), low);
  return em_fma(e, kr, num(x, f->ln2_hi), sub(e, g, sub(e, half, inner)));
}

/* What log has at 0, below, at infinity and NaN, over y. */
static em_val log_edges(em *e, em_val x, em_val y) {
  y = pick(e, cmp(e, LLVMRealOEQ, x, num(x, 0)), num(x, -INFINITY), y);
  y = pick(e, cmp(e, LLVMRealULT, x, num(x, 0)), num(x, NAN), y);
  return pick(e, cmp(e, LLVMRealOEQ, x, num(x, INFINITY)), x, y);
}

static em_val log_of(em *e, em_val x) {
  format f = format_of(e, x);
  em_val tiny = below(e, x, f.wide ? DBL_MIN : (double)FLT_MIN);
  em_val scaled = pick(e, tiny, mul(e, x, num(x, f.wide ? 0x1p54 : 0x1p25)), x);
  em_val k = pick(e, tiny, em_int(f.i, (uint64_t)(f.wide ? -54 : -25)), em_int(f.i, 0));
  return log_edges(e, x, log_normal(e, &f, scaled, NULL, k));
}

static em_val log1p_of(em *e, em_val x) {
  format f = format_of(e, x);
  em_val one = num(x, 1), u = add(e, one, x);
  em_val lost = pick(e, above(e, x, 1), sub(e, one, sub(e, u, x)), sub(e, x, sub(e, u, one)));      /* 1 + x - u */
  em_val y = log_edges(e, u, log_normal(e, &f, u, quotient(e, lost, u), NULL));
  return pick(e, below(e, magnitude(e, x), f.wide ? 0x1p-54 : 0x1p-25), x, y);
}

/* ---- circular functions */

typedef struct { em_val sin, cos, quadrant; } turn;      /* of r; x = quadrant * pi/2 + r; quadrant: an i32 or i64 */

/* In f64 for f32 too. pi/2 in parts of 30 (f32) or 33 bits, whose products with the quadrant are exact. */
static turn reduce_turn(em *e, em_val x) {
  LLVMBuilderRef b = e->b;
  bool narrow = !format_of(e, x).wide;
  em_val y = narrow ? LLVMBuildFPExt(b, x, em_like(x, e->f64), "") : x, k;
  format f = format_of(e, y);
  static const double parts[2][3] = {{0x1.921fb54p+0, 0x1.10b46118p-30, 0x1.313198a2e037p-61}, {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2e037073p-69}};
  em_val n = negate(e, nearest(e, &f, y, 0x1.45f306dc9c883p-1, &k)), r = y;
  const double *p = parts[!narrow];
  for (int i = 0; i < 3; i++) r = em_fma(e, n, num(y, p[i]), r);
  if (narrow) {
    r = LLVMBuildFPTrunc(b, r, LLVMTypeOf(x), "");
    k = LLVMBuildTrunc(b, k, em_like(x, e->i32), "");
  }
  em_val z = mul(e, r, r), s, c;
  if (narrow) {
    s = POLY(z, -0.166666552, 0.00833215937, -0.000195150991);
    c = POLY(z, 0.0416666456, -0.00138873141, 2.44329458e-05);
  } else {
    s = POLY(z, -0.1666666666666663, 0.008333333333322087, -0.00019841269829562943, 2.7557313611829886e-06, -2.5050746217977377e-08, 1.5896137930733411e-10);
    c = POLY(z, 0.04166666666666665, -0.0013888888888882829, 2.4801587294617806e-05, -2.7557315734784037e-07, 2.0875897109909768e-09, -1.1367944342365408e-11);
  }
  s = em_fma(e, mul(e, r, z), s, r);
  /* 1 - z/2 loses what its rounding leaves out; it is added back with the rest. */
  em_val half = mul(e, z, num(z, 0.5)), w = sub(e, num(z, 1), half), lost = sub(e, sub(e, num(z, 1), w), half);
  c = add(e, w, em_fma(e, mul(e, z, z), c, lost));
  return (turn){s, c, k};
}

static em_val has_bit(em *e, em_val k, uint64_t bit) {
  em_val m = LLVMBuildAnd(e->b, k, em_int(LLVMTypeOf(k), bit), "");
  return LLVMBuildICmp(e->b, LLVMIntNE, m, em_int(LLVMTypeOf(k), 0), "");
}

static em_val sin_cos(em *e, em_val x, bool cosine) {
  turn t = reduce_turn(e, x);
  if (cosine) t.quadrant = LLVMBuildAdd(e->b, t.quadrant, em_int(LLVMTypeOf(t.quadrant), 1), "");
  em_val y = pick(e, has_bit(e, t.quadrant, 1), t.cos, t.sin);
  return pick(e, has_bit(e, t.quadrant, 2), negate(e, y), y);
}

static em_val tan_of(em *e, em_val x) {
  turn t = reduce_turn(e, x);
  em_val odd = has_bit(e, t.quadrant, 1);
  return quotient(e, pick(e, odd, negate(e, t.cos), t.sin), pick(e, odd, t.sin, t.cos));
}

static em_val circular(em *e, ir_op op, em_val x) {
  bool wide = format_of(e, x).wide;
  em_val y = op == IR_tan ? tan_of(e, x) : sin_cos(e, x, op == IR_cos), a = magnitude(e, x);
  if (op != IR_cos) y = pick(e, below(e, a, wide ? 0x1p-28 : 0x1p-13), x, y);
  em_val far = above(e, a, wide ? 1e6 : 1e7);
  if (em_width(far)) {
    em_val all = LLVMBuildBitCast(e->b, far, LLVMIntTypeInContext(e->context, (unsigned)em_width(far)), "");
    far = LLVMBuildICmp(e->b, LLVMIntNE, all, em_int(LLVMTypeOf(all), 0), "");
  }
  em_branch branch = em_branch_begin(e, far);
  return em_branch_end(e, &branch, through_table(e, op, x, NULL), y);
}

/* atan t, 0 <= t <= 1 */
static em_val atan_unit(em *e, em_val t) {
  em_val z = mul(e, t, t);
  em_val p = POLY(z, -0.333332986, 0.199985489, -0.142642424, 0.109521866, -0.0840345249, 0.0579576269, -0.0311778728, 0.0109146172, -0.00179362367);
  return em_fma(e, mul(e, t, z), p, t);
}

static em_val half_pi_minus(em *e, em_val r) { return sub(e, num(r, 0x1.921fb6p0), add(e, r, num(r, 0x1.777a5cp-25))); }

static em_val atan_of(em *e, em_val a) {
  em_val x = magnitude(e, a), large = above(e, x, 1), r = atan_unit(e, pick(e, large, quotient(e, num(a, 1), x), x));
  return with_sign(e, pick(e, large, half_pi_minus(e, r), r), a);
}

static em_val atan2_of(em *e, em_val y, em_val x) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef i = em_like(x, e->i32);
  em_val ax = magnitude(e, x), ay = magnitude(e, y), steep = cmp(e, LLVMRealOGT, ay, ax);
  em_val high = pick(e, steep, ay, ax), low = pick(e, steep, ax, ay), t = quotient(e, low, high);
  t = pick(e, cmp(e, LLVMRealOEQ, high, num(x, 0)), num(x, 0), t);
  t = pick(e, cmp(e, LLVMRealOEQ, low, num(x, INFINITY)), num(x, 1), t);
  em_val r = atan_unit(e, t);
  r = pick(e, steep, half_pi_minus(e, r), r);
  em_val left = LLVMBuildICmp(b, LLVMIntSLT, bits_of(e, x, i), em_int(i, 0), "");
  r = pick(e, left, sub(e, num(x, 0x1.921fb6p1), add(e, r, num(x, 0x1.777a5cp-24))), r);
  return pick(e, cmp(e, LLVMRealUNO, x, y), add(e, x, y), with_sign(e, r, y));
}

/* ---- pow of f32, as exp(y log |x|) in f64 */

static em_val pow_of(em *e, em_val a, em_val b) {
  LLVMBuilderRef m = e->b;
  LLVMTypeRef f64 = em_like(a, e->f64), i = em_like(a, e->i64);
  em_val x = LLVMBuildFPExt(m, a, f64, ""), y = LLVMBuildFPExt(m, b, f64, ""), ax = magnitude(e, x), one = em_real(f64, 1);
  em_val r = exp_of(e, mul(e, y, log_of(e, ax)));
  em_val whole = cmp(e, LLVMRealOEQ, em_call(e, "llvm.floor", f64, y, NULL, NULL), y), half = mul(e, y, em_real(f64, 0.5));
  em_val odd = LLVMBuildAnd(m, whole, cmp(e, LLVMRealUNE, em_call(e, "llvm.floor", f64, half, NULL, NULL), half), "");
  em_val negative = LLVMBuildICmp(m, LLVMIntSLT, bits_of(e, x, i), em_int(i, 0), "");
  em_val no_power = LLVMBuildAnd(m, LLVMBuildAnd(m, below(e, x, 0), above(e, x, -INFINITY), ""), LLVMBuildNot(m, whole, ""), "");
  em_val to_infinity = LLVMBuildAnd(m, cmp(e, LLVMRealOEQ, ax, one), cmp(e, LLVMRealOEQ, magnitude(e, y), em_real(f64, INFINITY)), "");
  r = pick(e, to_infinity, one, r);
  r = pick(e, LLVMBuildAnd(m, negative, odd, ""), negate(e, r), r);
  r = pick(e, no_power, em_real(f64, NAN), r);
  em_val is_one = LLVMBuildOr(m, cmp(e, LLVMRealOEQ, x, one), cmp(e, LLVMRealOEQ, y, em_real(f64, 0)), "");
  return LLVMBuildFPTrunc(m, pick(e, is_one, one, r), LLVMTypeOf(a), "");
}

em_val em_math(em *e, ir_op op, em_val a, em_val b) {
  bool wide = format_of(e, a).wide;
  switch (op) {
  case IR_exp: return exp_of(e, a);
  case IR_expm1: return expm1_of(e, a);
  case IR_log: return log_of(e, a);
  case IR_log1p: return log1p_of(e, a);
  case IR_sigmoid: return sigmoid(e, a);
  case IR_tanh: return tanh_of(e, a);
  case IR_sin: case IR_cos: return circular(e, op, a);
  default: break;
  }
  if (!wide) switch (op) {
    case IR_tan: return circular(e, op, a);
    case IR_erf: return erf_of(e, a);
    case IR_atan: return atan_of(e, a);
    case IR_atan2: return atan2_of(e, a, b);
    case IR_pow: return pow_of(e, a, b);
    default: break;
  }
  if (table_index(op) < 0) {
    tt_fail(e->err, TT_INTERNAL, "error: %s has no code\n  at codegen/llvm/math.c\n  fix: add it to em_math", ir_ops[op].name);
    return a;
  }
  return through_table(e, op, a, b);
}
