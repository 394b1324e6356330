/* op.c: the elementwise ops of ops.def on LLVM values, scalar or vector. Every op is total: it traps on no input, so that lanes
 * that are switched off may hold anything. f16 and bf16 results are rounded after each op. */
#include <math.h>
#include <string.h>

#include "llvm.h"

static em_val blend(em *e, em_val c, em_val a, em_val b) { return LLVMBuildSelect(e->b, c, a, b, ""); }
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
  case IR_add: return LLVMBuildAdd(m, a, b, "");
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

/* ---- random: tt_random_word */

/* The words of the counters n, as i32. Inside, words are the low halves of i64, whose upper halves may hold anything. The ten rounds are
 * a loop, because their code is long; two machine vectors at a time keep the state in registers. */
static void random_block(em *e, em_val seed, em_val step, em_val n, uint32_t stream, em_val c[4]) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef t = LLVMTypeOf(n);
  int width = em_width(n);
  if (width > e->cpu->vector_bytes / 4 && width % 2 == 0) {
    int lanes[256];
    for (int i = 0; i < width; i++) lanes[i] = i;
    em_val low[4], high[4];
    random_block(e, seed, step, em_shuffle(e, n, NULL, lanes, width / 2), stream, low);
    random_block(e, seed, step, em_shuffle(e, n, NULL, lanes + width / 2, width / 2), stream, high);
    for (int i = 0; i < 4; i++) c[i] = em_shuffle(e, low[i], high[i], lanes, width);
    return;
  }
  em_val low = em_int(t, 0xffffffff), half = em_int(t, 32), start[6], next[6], phi[6];
  start[0] = n, start[1] = LLVMBuildLShr(b, n, half, ""), start[2] = em_splat(e, step, width), start[3] = em_int(t, stream);
  int key = width < e->cpu->vector_bytes / 8 ? width : e->cpu->vector_bytes / 8, same[256];      /* the key takes one register, whatever n takes */
  for (int i = 0; i < width; i++) same[i] = key ? i % key : 0;
  start[4] = em_splat(e, seed, key), start[5] = em_splat(e, LLVMBuildLShr(b, seed, em_int(e->i64, 32), ""), key);
  em_repeat r = em_repeat_begin(e);
  for (int i = 0; i < 6; i++) phi[i] = LLVMBuildPhi(b, LLVMTypeOf(start[i]), "");
  em_val p0 = LLVMBuildMul(b, LLVMBuildAnd(b, phi[0], low, ""), em_int(t, 0xD2511F53), "");
  em_val p1 = LLVMBuildMul(b, LLVMBuildAnd(b, phi[2], low, ""), em_int(t, 0xCD9E8D57), "");
  next[0] = LLVMBuildXor(b, LLVMBuildXor(b, LLVMBuildLShr(b, p1, half, ""), phi[1], ""), key ? em_shuffle(e, phi[4], NULL, same, width) : phi[4], "");
  next[2] = LLVMBuildXor(b, LLVMBuildXor(b, LLVMBuildLShr(b, p0, half, ""), phi[3], ""), key ? em_shuffle(e, phi[5], NULL, same, width) : phi[5], "");
  next[1] = p1, next[3] = p0;
  next[4] = LLVMBuildAdd(b, phi[4], em_int(LLVMTypeOf(phi[4]), 0x9E3779B9), "");
  next[5] = LLVMBuildAdd(b, phi[5], em_int(LLVMTypeOf(phi[5]), 0xBB67AE85), "");
  em_repeat_end(e, &r, 10, phi, start, next, 6);
  for (int i = 0; i < 4; i++) c[i] = LLVMBuildTrunc(b, next[i], em_like(n, e->i32), "");
}

/* seed, step: scalars. index: any lanes; each lane computes its whole block and takes one word of it. */
em_val em_philox(em *e, em_val seed, em_val step, em_val index, uint32_t stream) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef t = LLVMTypeOf(index);
  em_val block = LLVMBuildShl(b, LLVMBuildLShr(b, index, em_int(t, 6), ""), em_int(t, 4), ""), c[4];
  random_block(e, seed, step, LLVMBuildOr(b, block, LLVMBuildAnd(b, index, em_int(t, 15), ""), ""), stream, c);
  em_val word = LLVMBuildAnd(b, LLVMBuildLShr(b, index, em_int(t, 4), ""), em_int(t, 3), "");
  em_val odd = is(e, LLVMIntNE, LLVMBuildAnd(b, word, em_int(t, 1), ""), 0), high = is(e, LLVMIntUGE, word, 2);
  return blend(e, high, blend(e, odd, c[3], c[2]), blend(e, odd, c[1], c[0]));
}

em_val em_philox_block(em *e, em_val seed, em_val step, em_val first, uint32_t stream, int n) {
  LLVMBuilderRef b = e->b;
  em_val block = LLVMBuildShl(b, LLVMBuildLShr(b, first, em_int(e->i64, 6), ""), em_int(e->i64, 4), ""), c[4];
  random_block(e, seed, step, LLVMBuildOr(b, em_splat(e, block, 16), em_lanes(e->i64, 16, 0, 1), ""), stream, c);
  int all[64];
  for (int i = 0; i < 64; i++) all[i] = i;
  em_val bit4 = is(e, LLVMIntNE, LLVMBuildAnd(b, first, em_int(e->i64, 16), ""), 0), bit5 = is(e, LLVMIntNE, LLVMBuildAnd(b, first, em_int(e->i64, 32), ""), 0);
  if (n == 1) return blend(e, bit5, blend(e, bit4, c[3], c[2]), blend(e, bit4, c[1], c[0]));
  em_val low = em_shuffle(e, c[0], c[1], all, 32), high = em_shuffle(e, c[2], c[3], all, 32);
  return n == 2 ? blend(e, bit5, high, low) : em_shuffle(e, low, high, all, 64);
}
