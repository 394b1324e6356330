/* op.c: the elementwise ops of ops.def on LLVM values, scalar or vector. Every op is total: it traps on no input, so that lanes
 * that are switched off may hold anything. f16 and bf16 results are rounded after each op. */
#include <math.h>
#include <string.h>

#include "llvm.h"

static em_val blend(em *e, em_val c, em_val a, em_val b) {
  if (LLVMIsAConstantInt(c)) return LLVMConstIntGetZExtValue(c) ? a : b;         /* a divisor that is a number */
  return LLVMBuildSelect(e->b, c, a, b, "");
}
static em_val is(em *e, LLVMIntPredicate p, em_val a, uint64_t v) { return LLVMBuildICmp(e->b, p, a, em_int(LLVMTypeOf(a), v), ""); }

/* Division by zero gives 0 and INT_MIN / -1 wraps: the divisor of the instruction is never 0 or -1. */
static em_val divide(em *e, bool is_signed, bool remainder, em_val a, em_val d) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef t = LLVMTypeOf(a);
  em_val zero = em_int(t, 0), one = em_int(t, 1), is_zero = is(e, LLVMIntEQ, d, 0), bad = is_zero;
  em_val minus = is_signed ? is(e, LLVMIntEQ, d, UINT64_MAX) : NULL;
  if (minus) bad = LLVMBuildOr(b, is_zero, minus, "");
  em_val safe = blend(e, bad, one, d), r;
  if (remainder) {
    r = is_signed ? LLVMBuildSRem(b, a, safe, "") : LLVMBuildURem(b, a, safe, "");
    return blend(e, bad, zero, r);
  }
  r = is_signed ? LLVMBuildSDiv(b, a, safe, "") : LLVMBuildUDiv(b, a, safe, "");
  if (minus) r = blend(e, minus, LLVMBuildNeg(b, a, ""), r);
  return blend(e, is_zero, zero, r);
}

static em_val shift(em *e, bool left, bool is_signed, em_val a, em_val n) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef t = LLVMTypeOf(a);
  unsigned bits = LLVMGetIntTypeWidth(em_width(a) ? LLVMGetElementType(t) : t);
  em_val in_range = is(e, LLVMIntULT, n, bits), zero = em_int(t, 0);
  if (!left && is_signed) return LLVMBuildAShr(b, a, blend(e, in_range, n, em_int(t, bits - 1)), "");
  em_val safe = blend(e, in_range, n, zero);
  return blend(e, in_range, left ? LLVMBuildShl(b, a, safe, "") : LLVMBuildLShr(b, a, safe, ""), zero);
}

static em_val real_max(em *e, bool max, em_val a, em_val b) {
  em_val r = blend(e, LLVMBuildFCmp(e->b, max ? LLVMRealOGT : LLVMRealOLT, a, b, ""), a, b);    /* one instruction; b when either is NaN */
  return blend(e, LLVMBuildFCmp(e->b, LLVMRealUNO, a, a, ""), a, r);
}

static em_val real_sign(em *e, em_val a) {
  LLVMTypeRef t = LLVMTypeOf(a);
  em_val zero = em_real(t, 0);
  em_val r = blend(e, LLVMBuildFCmp(e->b, LLVMRealOLT, a, zero, ""), em_real(t, -1), zero);
  return blend(e, LLVMBuildFCmp(e->b, LLVMRealOGT, a, zero, ""), em_real(t, 1), r);
}

static em_val compare(em *e, ir_op op, tt_dtype t, em_val a, em_val b) {
  static const struct { uint16_t op; LLVMRealPredicate real; LLVMIntPredicate sint, uint; } table[] = {
    {IR_eq, LLVMRealOEQ, LLVMIntEQ, LLVMIntEQ},    {IR_ne, LLVMRealUNE, LLVMIntNE, LLVMIntNE},
    {IR_lt, LLVMRealOLT, LLVMIntSLT, LLVMIntULT},  {IR_le, LLVMRealOLE, LLVMIntSLE, LLVMIntULE},
    {IR_gt, LLVMRealOGT, LLVMIntSGT, LLVMIntUGT},  {IR_ge, LLVMRealOGE, LLVMIntSGE, LLVMIntUGE},
  };
  size_t i = 0;
  while (table[i].op != op) i++;
  if (tt_dtype_in(t, TT_REAL)) return LLVMBuildFCmp(e->b, table[i].real, a, b, "");
  return LLVMBuildICmp(e->b, tt_dtype_in(t, TT_SINT) ? table[i].sint : table[i].uint, a, b, "");
}

static em_val real_op(em *e, ir_op op, em_val a, em_val b) {
  LLVMBuilderRef m = e->b;
  LLVMTypeRef t = LLVMTypeOf(a);
  switch (op) {
  case IR_neg: return LLVMBuildFNeg(m, a, "");
  case IR_abs: return em_call(e, "llvm.fabs", t, a, NULL, NULL);
  case IR_sign: return real_sign(e, a);
  case IR_sqrt: return em_call(e, "llvm.sqrt", t, a, NULL, NULL);
  case IR_rsqrt: return LLVMBuildFDiv(m, em_real(t, 1), em_call(e, "llvm.sqrt", t, a, NULL, NULL), "");
  case IR_relu: return blend(e, LLVMBuildFCmp(m, LLVMRealOLT, a, em_real(t, 0), ""), em_real(t, 0), a);
  case IR_floor: return em_call(e, "llvm.floor", t, a, NULL, NULL);
  case IR_ceil: return em_call(e, "llvm.ceil", t, a, NULL, NULL);
  case IR_round: return em_call(e, "llvm.rint", t, a, NULL, NULL);
  case IR_add: return LLVMBuildFAdd(m, a, b, "");
  case IR_sub: return LLVMBuildFSub(m, a, b, "");
  case IR_mul: return LLVMBuildFMul(m, a, b, "");
  case IR_div: return LLVMBuildFDiv(m, a, b, "");
  case IR_max: return real_max(e, true, a, b);
  case IR_min: return real_max(e, false, a, b);
  default: return em_math(e, op, a, b);
  }
}

static em_val int_op(em *e, ir_op op, bool s, em_val a, em_val b) {
  LLVMBuilderRef m = e->b;
  LLVMTypeRef t = LLVMTypeOf(a);
  switch (op) {
  case IR_neg: return LLVMBuildNeg(m, a, "");
  case IR_abs: return s ? blend(e, is(e, LLVMIntSLT, a, 0), LLVMBuildNeg(m, a, ""), a) : a;
  case IR_sign: {
    em_val r = s ? blend(e, is(e, LLVMIntSLT, a, 0), em_int(t, UINT64_MAX), em_int(t, 1)) : em_int(t, 1);
    return blend(e, is(e, LLVMIntEQ, a, 0), em_int(t, 0), r);
  }
  case IR_relu: return s ? blend(e, is(e, LLVMIntSLT, a, 0), em_int(t, 0), a) : a;
  case IR_not: return LLVMBuildNot(m, a, "");
  case IR_add: return LLVMIsAConstantInt(b) && !LLVMConstIntGetZExtValue(b) ? a : LLVMBuildAdd(m, a, b, "");
  case IR_sub: return LLVMBuildSub(m, a, b, "");
  case IR_mul: return LLVMBuildMul(m, a, b, "");
  case IR_div: return divide(e, s, false, a, b);
  case IR_fmod: return divide(e, s, true, a, b);
  case IR_max: return blend(e, LLVMBuildICmp(m, s ? LLVMIntSGT : LLVMIntUGT, a, b, ""), a, b);
  case IR_min: return blend(e, LLVMBuildICmp(m, s ? LLVMIntSLT : LLVMIntULT, a, b, ""), a, b);
  case IR_and: return LLVMBuildAnd(m, a, b, "");
  case IR_or: return LLVMBuildOr(m, a, b, "");
  case IR_xor: return LLVMBuildXor(m, a, b, "");
  case IR_shl: return shift(e, true, s, a, b);
  case IR_shr: return shift(e, false, s, a, b);
  default:
    tt_fail(e->err, TT_INTERNAL, "error: %s has no code for integers\n  at codegen/llvm/op.c\n  fix: add it to int_op", ir_ops[op].name);
    return a;
  }
}

em_val em_op(em *e, ir_op op, tt_dtype in, tt_dtype out, em_val a, em_val b, em_val c) {
  switch (op) {
  case IR_select: return blend(e, a, b, c);
  case IR_cast: return em_cast(e, in, out, a);
  case IR_bitcast: return em_bitcast(e, in, out, a);
  case IR_stop_gradient: return a;
  case IR_eq: case IR_ne: case IR_lt: case IR_le: case IR_gt: case IR_ge: return compare(e, op, in, a, b);
  default: break;
  }
  if (tt_dtype_in(in, TT_REAL)) return em_round_to(e, out, real_op(e, op, a, b));
  return int_op(e, op, tt_dtype_in(in, TT_SINT), a, b);
}

/* a: what there is so far. It comes second, so that max and min look for NaN in b alone, off the chain of dependences. */
em_val em_combine(em *e, ir_op op, tt_dtype t, em_val a, em_val b) { return em_op(e, op, t, t, b, a, NULL); }

em_val em_identity(em *e, ir_op op, tt_dtype t, int width) {
  LLVMTypeRef type = em_type(e, t, width);
  bool real = tt_dtype_in(t, TT_REAL), s = tt_dtype_in(t, TT_SINT);
  unsigned bits = t == TT_BOOL ? 1 : 8 * (unsigned)tt_dtype_size(t);
  uint64_t highest = s ? UINT64_MAX >> (65 - bits) : UINT64_MAX >> (64 - bits);
  switch (op) {
  case IR_add: return real ? em_real(type, -0.0) : em_int(type, 0);
  case IR_mul: return real ? em_real(type, 1) : em_int(type, 1);
  case IR_max: return real ? em_real(type, -INFINITY) : em_int(type, s ? ~highest : 0);
  case IR_min: return real ? em_real(type, INFINITY) : em_int(type, highest);
  case IR_and: return em_int(type, UINT64_MAX);
  case IR_or: return em_int(type, 0);
  default:
    tt_fail(e->err, TT_INTERNAL, "error: a reduction by %s has no identity\n  at codegen/llvm/op.c\n  fix: use add mul max min and or", ir_ops[op].name);
    return em_int(em_type(e, TT_I64, width), 0);
  }
}

/* ---- random: tt_random_half */

em_keys em_philox_keys(em *e, em_val seed, int width) {
  em_keys keys;
  em_val k[2] = {LLVMBuildAnd(e->b, seed, em_int(e->i64, 0xffffffff), ""), LLVMBuildLShr(e->b, seed, em_int(e->i64, 32), "")};
  static const uint32_t step[2] = {0x9E3779B9, 0xBB67AE85};
  for (int round = 0; round < TT_RANDOM_ROUNDS; round++)
    for (int i = 0; i < 2; i++) {
      keys.k[round][i] = em_splat(e, k[i], width);
      k[i] = LLVMBuildAnd(e->b, LLVMBuildAdd(e->b, k[i], em_int(e->i64, step[i]), ""), em_int(e->i64, 0xffffffff), "");
    }
  return keys;
}

/* The rounds for the counters n. A word is the low half of an i64, whose upper half may hold anything; the product of two words has the next
 * two: its low half is one as it stands. The last round leaves its two in place: w[0] = c1 | c0 << 32, w[1] = c3 | c2 << 32. */
static void random_block(em *e, const em_keys *keys, em_val step, em_val n, uint32_t stream, em_val w[2]) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef t = LLVMTypeOf(n);
  em_val low = em_int(t, 0xffffffff), half = em_int(t, 32);
  em_val c[4] = {n, LLVMBuildLShr(b, n, half, ""), em_splat(e, step, em_width(n)), em_int(t, stream)};
  for (int round = 0; round < TT_RANDOM_ROUNDS; round++) {
    em_val p[2] = {LLVMBuildMul(b, LLVMBuildAnd(b, c[2], low, ""), em_int(t, 0xCD9E8D57), ""), LLVMBuildMul(b, LLVMBuildAnd(b, c[0], low, ""), em_int(t, 0xD2511F53), "")};
    for (int i = 0; i < 2; i++) {
      em_val keyed = LLVMBuildXor(b, c[2 * i + 1], keys->k[round][i], "");
      if (round == TT_RANDOM_ROUNDS - 1) w[i] = LLVMBuildXor(b, p[i], LLVMBuildShl(b, keyed, half, ""), "");
      else c[2 * i] = LLVMBuildXor(b, LLVMBuildLShr(b, p[i], half, ""), keyed, ""), c[2 * i + 1] = p[i];
    }
  }
}

em_val em_philox(em *e, const em_keys *keys, em_val step, em_val index, uint32_t stream) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef t = LLVMTypeOf(index);
  em_val block = LLVMBuildShl(b, LLVMBuildLShr(b, index, em_int(t, 5), ""), em_int(t, 2), ""), w[2];
  em_val n = LLVMBuildOr(b, block, LLVMBuildAnd(b, LLVMBuildLShr(b, index, em_int(t, 2), ""), em_int(t, 3), ""), "");
  random_block(e, keys, step, n, stream, w);
  em_val word = blend(e, is(e, LLVMIntNE, LLVMBuildAnd(b, index, em_int(t, 16), ""), 0), w[1], w[0]);
  em_val bits = LLVMBuildShl(b, LLVMBuildAnd(b, index, em_int(t, 3), ""), em_int(t, 4), "");
  return LLVMBuildTrunc(b, LLVMBuildLShr(b, word, bits, ""), em_like(index, e->i16), "");
}

em_val em_philox_block(em *e, const em_keys *keys, em_val step, em_val first, uint32_t stream, int n) {
  LLVMBuilderRef b = e->b;
  em_val w[2], counter = LLVMBuildLShr(b, first, em_int(e->i64, 3), "");
  random_block(e, keys, step, LLVMBuildAdd(b, em_splat(e, counter, 4 * n), em_lanes(e->i64, 4 * n, 0, 1), ""), stream, w);
  int lanes[64];
  for (int i = 0; i < 8 * n; i++) lanes[i] = i / 8 * 4 + i % 4 + (i / 4 % 2) * 4 * n;
  return LLVMBuildBitCast(b, em_shuffle(e, w[0], w[1], lanes, 8 * n), em_widen(e->i16, 32 * n), "");
}
