/* amx.c: sums of bf16 products by the instructions for them. vdpbf16ps (AVX512_BF16) adds the products of pairs to 16 sums; AMX multiplies tiles of 16 rows
 * by 64 bytes. A block of up to 32 x 32 sums is four tiles, so each tile of an operand is loaded once for two products:
 *
 *     for p in 0..pairs by 16:   a0, b0, c00 += a0 b0, b1, c01 += a0 b1, a1, c10 += a1 b0, c11 += a1 b1
 *
 * LLVM makes the configuration of the tiles and assigns their registers. Both kinds flush denormals, and add the two products of a pair first. */
#include <string.h>

#include "emit.h"

static em_val call(em *e, const char *name, LLVMTypeRef result, em_val *args, int n) {
  LLVMTypeRef types[8];
  for (int i = 0; i < n; i++) types[i] = LLVMTypeOf(args[i]);
  LLVMTypeRef type = LLVMFunctionType(result, types, (unsigned)n, false);
  em_val f = LLVMGetNamedFunction(e->module, name);
  if (!f) f = LLVMAddFunction(e->module, name, type);
  return LLVMBuildCall2(e->b, type, f, args, (unsigned)n, "");
}

static em_val half(em *e, em_val pair, bool high) {
  LLVMTypeRef i32 = em_like(pair, e->i32);
  em_val bits = high ? LLVMBuildAnd(e->b, pair, em_int(i32, 0xffff0000), "") : LLVMBuildShl(e->b, pair, em_int(i32, 16), "");
  return LLVMBuildBitCast(e->b, bits, em_like(pair, e->f32), "");
}

em_val em_dot(em *e, em_val a, em_val b, em_val sum) {
  enum { LANES = 16 };
  int width = em_width(sum), lanes[LANES], all[256];
  if (!e->cpu->bf16 || width % LANES || width > 256 || width == 0) return em_fma(e, half(e, a, true), half(e, b, true), em_fma(e, half(e, a, false), half(e, b, false), sum));
  em_val parts[256 / LANES];
  LLVMTypeRef pairs = LLVMVectorType(LLVMBFloatTypeInContext(e->context), 2 * LANES);
  int n = width / LANES;
  for (int i = 0; i < n; i++) {
    em_val args[3] = {sum, a, b};
    for (int k = 0; k < LANES; k++) lanes[k] = i * LANES + k;
    for (int k = 0; k < 3 && n > 1; k++) args[k] = em_shuffle(e, args[k], NULL, lanes, LANES);
    for (int k = 1; k < 3; k++) args[k] = LLVMBuildBitCast(e->b, args[k], pairs, "");
    parts[i] = call(e, "llvm.x86.avx512bf16.dpbf16ps.512", LLVMTypeOf(args[0]), args, 3);
  }
  for (int i = 0; i < 256; i++) all[i] = i;
  for (int step = 1; step < n; step *= 2)
    for (int i = 0; i + step < n; i += 2 * step) parts[i] = em_shuffle(e, parts[i], parts[i + step], all, 2 * step * LANES);
  return parts[0];
}

typedef struct { em_val base, stride; } matrix;      /* bytes */

static matrix matrix_at(em *e, int buffer, lp_ref index, int64_t stride) {
  return (matrix){em_address(e, buffer, em_value(e, index)), em_int(e->i64, (uint64_t)stride * 4)};
}

static em_val at(em *e, em_val base, em_val bytes) { return LLVMBuildGEP2(e->b, e->i8, base, &bytes, 1, ""); }

void em_tiles(em *e, const lp_stmt *s) {
  const lp_tiles *x = s->tiles;
  if (!e->cpu->amx) {
    em_bad(e, "tiles for a CPU without AMX", s->index);
    return;
  }
  LLVMTypeRef tile = LLVMX86AMXTypeInContext(e->context), nothing = LLVMVoidTypeInContext(e->context);
  em_val bytes = em_int(e->i16, 64);
  int n_rows = x->rows / 16, n_lanes = x->lanes / 16;
  em_val rows = em_int(e->i16, 16);
  matrix a = matrix_at(e, x->a, s->value, x->a_stride), b = matrix_at(e, x->b, s->guard, x->b_stride), c = matrix_at(e, x->c, s->index, x->c_stride);
  em_val start[4], phi[4], next[4];
  int n = 0;
  for (int i = 0; i < n_rows; i++)
    for (int j = 0; j < n_lanes; j++) {
      em_val to = at(e, c.base, em_int(e->i64, (uint64_t)(i * 16 * x->c_stride + j * 16) * 4)), load[4] = {rows, bytes, to, c.stride}, zero[2] = {rows, bytes};
      start[n++] = x->add ? call(e, "llvm.x86.tileloadd64.internal", tile, load, 4) : call(e, "llvm.x86.tilezero.internal", tile, zero, 2);
    }
  LLVMBasicBlockRef from = LLVMGetInsertBlock(e->b), inside = em_block(e), after = em_block(e);
  LLVMBuildBr(e->b, inside);
  LLVMPositionBuilderAtEnd(e->b, inside);
  em_val p = LLVMBuildPhi(e->b, e->i64, "");
  for (int i = 0; i < n; i++) phi[i] = LLVMBuildPhi(e->b, tile, "");
  em_val a_step = LLVMBuildMul(e->b, p, em_int(e->i64, 4), ""), b_step = LLVMBuildMul(e->b, p, em_int(e->i64, (uint64_t)x->b_stride * 4), ""), left[2], right[2];
  for (int i = 0; i < n_rows; i++) {
    em_val load[4] = {rows, bytes, at(e, at(e, a.base, em_int(e->i64, (uint64_t)(i * 16 * x->a_stride) * 4)), a_step), a.stride};
    left[i] = call(e, "llvm.x86.tileloadd64.internal", tile, load, 4);
    for (int j = 0; j < n_lanes; j++) {
      em_val take[4] = {rows, bytes, at(e, at(e, b.base, em_int(e->i64, (uint64_t)j * 64)), b_step), b.stride};
      if (i == 0) right[j] = call(e, "llvm.x86.tileloadd64.internal", tile, take, 4);
      em_val multiply[6] = {rows, bytes, bytes, phi[i * n_lanes + j], left[i], right[j]};
      next[i * n_lanes + j] = call(e, "llvm.x86.tdpbf16ps.internal", tile, multiply, 6);
    }
  }
  em_val on = LLVMBuildAdd(e->b, p, em_int(e->i64, 16), "");
  LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntULT, on, em_int(e->i64, (uint64_t)x->pairs), ""), inside, after);
  LLVMAddIncoming(p, (em_val[]){em_int(e->i64, 0), on}, (LLVMBasicBlockRef[]){from, inside}, 2);
  for (int i = 0; i < n; i++) LLVMAddIncoming(phi[i], (em_val[]){start[i], next[i]}, (LLVMBasicBlockRef[]){from, inside}, 2);
  LLVMPositionBuilderAtEnd(e->b, after);
  n = 0;
  for (int i = 0; i < n_rows; i++)
    for (int j = 0; j < n_lanes; j++) {
      em_val to = at(e, c.base, em_int(e->i64, (uint64_t)(i * 16 * x->c_stride + j * 16) * 4)), store[5] = {rows, bytes, to, c.stride, next[n++]};
      call(e, "llvm.x86.tilestored64.internal", nothing, store, 5);
    }
  em_touch_buffer(e, x->c);
}
