/* value.c: types, constants and vectors, and the conversions between element types. Half floats are converted by the CPU where
 * it can (F16C) and by integer code otherwise; bf16 always by integer code. No conversion becomes a call. */
#include <string.h>

#include "llvm.h"

enum { MAX_LANES = 256 };

/* Without a handler, LLVM prints what it has to say and exits when it is an error. */
static void diagnose(LLVMDiagnosticInfoRef info, void *err) {
  if (LLVMGetDiagInfoSeverity(info) != LLVMDSError) return;
  char *text = LLVMGetDiagInfoDescription(info);
  tt_fail(err, TT_INTERNAL, "error: LLVM refuses a kernel: %s\n  at codegen/llvm\n  fix: report this", text);
  LLVMDisposeMessage(text);
}

void em_open(em *e, const cg_cpu *cpu, const char *module, tt_error *err) {
  *e = (em){.context = LLVMContextCreate(), .cpu = cpu, .err = err};
  LLVMContextSetDiagnosticHandler(e->context, diagnose, err);
  e->module = LLVMModuleCreateWithNameInContext(module, e->context);
  e->b = LLVMCreateBuilderInContext(e->context);
  e->i1 = LLVMInt1TypeInContext(e->context), e->i8 = LLVMInt8TypeInContext(e->context);
  e->i16 = LLVMInt16TypeInContext(e->context), e->i32 = LLVMInt32TypeInContext(e->context);
  e->i64 = LLVMInt64TypeInContext(e->context), e->f16 = LLVMHalfTypeInContext(e->context);
  e->f32 = LLVMFloatTypeInContext(e->context), e->f64 = LLVMDoubleTypeInContext(e->context);
  e->ptr = LLVMPointerTypeInContext(e->context, 0);
}

void em_close(em *e) {
  LLVMDisposeBuilder(e->b);
  LLVMDisposeModule(e->module);
  LLVMContextDispose(e->context);
}

LLVMTypeRef em_widen(LLVMTypeRef scalar, int width) { return width ? LLVMVectorType(scalar, (unsigned)width) : scalar; }

LLVMTypeRef em_type(em *e, tt_dtype t, int width) {
  LLVMTypeRef types[TT_N_DTYPES] = {
    [TT_F32] = e->f32, [TT_F64] = e->f64, [TT_F16] = e->f32, [TT_BF16] = e->f32, [TT_I8] = e->i8, [TT_U8] = e->i8, [TT_I16] = e->i16,
    [TT_U16] = e->i16, [TT_I32] = e->i32, [TT_U32] = e->i32, [TT_I64] = e->i64, [TT_U64] = e->i64, [TT_BOOL] = e->i1,
  };
  return em_widen(types[t], width);
}

LLVMTypeRef em_memory_type(em *e, tt_dtype t, int width) {
  if (t == TT_BOOL) return em_widen(e->i8, width);
  if (t == TT_F16 || t == TT_BF16) return em_widen(e->i16, width);
  return em_type(e, t, width);
}

int em_width(em_val v) {
  LLVMTypeRef t = LLVMTypeOf(v);
  return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? (int)LLVMGetVectorSize(t) : 0;
}

LLVMTypeRef em_like(em_val v, LLVMTypeRef scalar) { return em_widen(scalar, em_width(v)); }

static em_val repeat(em_val scalar, int width) {
  em_val lanes[MAX_LANES];
  for (int i = 0; i < width; i++) lanes[i] = scalar;
  return LLVMConstVector(lanes, (unsigned)width);
}

em_val em_shuffle(em *e, em_val a, em_val b, const int *lanes, int n) {
  em_val mask[MAX_LANES];
  for (int i = 0; i < n; i++) mask[i] = LLVMConstInt(e->i32, (unsigned)lanes[i], false);
  return LLVMBuildShuffleVector(e->b, a, b ? b : LLVMGetPoison(LLVMTypeOf(a)), LLVMConstVector(mask, (unsigned)n), "");
}

em_val em_splat(em *e, em_val scalar, int width) {
  if (!width) return scalar;
  if (LLVMIsConstant(scalar)) return repeat(scalar, width);
  em_val v = LLVMBuildInsertElement(e->b, LLVMGetPoison(em_widen(LLVMTypeOf(scalar), width)), scalar, LLVMConstInt(e->i64, 0, false), "");
  return em_shuffle(e, v, NULL, (int[MAX_LANES]){0}, width);
}

em_val em_int(LLVMTypeRef t, uint64_t v) {
  if (LLVMGetTypeKind(t) != LLVMVectorTypeKind) return LLVMConstInt(t, v, false);
  return repeat(LLVMConstInt(LLVMGetElementType(t), v, false), (int)LLVMGetVectorSize(t));
}

em_val em_real(LLVMTypeRef t, double v) {
  if (LLVMGetTypeKind(t) != LLVMVectorTypeKind) return LLVMConstReal(t, v);
  return repeat(LLVMConstReal(LLVMGetElementType(t), v), (int)LLVMGetVectorSize(t));
}

em_val em_lanes(LLVMTypeRef scalar, int width, int64_t start, int64_t step) {
  em_val lanes[MAX_LANES];
  for (int i = 0; i < width; i++) lanes[i] = LLVMConstInt(scalar, (uint64_t)(start + i * step), false);
  return LLVMConstVector(lanes, (unsigned)width);
}

em_val em_mask(em *e, int width, int active) {
  em_val lanes[MAX_LANES];
  for (int i = 0; i < width; i++) lanes[i] = LLVMConstInt(e->i1, i < active, false);
  return LLVMConstVector(lanes, (unsigned)width);
}

em_val em_call(em *e, const char *intrinsic, LLVMTypeRef overload, em_val a, em_val b, em_val c) {
  unsigned id = LLVMLookupIntrinsicID(intrinsic, strlen(intrinsic));
  em_val f = LLVMGetIntrinsicDeclaration(e->module, id, &overload, 1);
  return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->context, id, &overload, 1), f, (em_val[]){a, b, c}, 1u + !!b + !!c, "");
}

em_val em_fma(em *e, em_val a, em_val b, em_val c) { return em_call(e, e->cpu->fma ? "llvm.fma" : "llvm.fmuladd", LLVMTypeOf(a), a, b, c); }

/* ---- halves */

#define AND(a, v) LLVMBuildAnd(b, a, em_int(LLVMTypeOf(a), v), "")
#define SHR(a, v) LLVMBuildLShr(b, a, em_int(LLVMTypeOf(a), v), "")
#define SHL(a, v) LLVMBuildShl(b, a, em_int(LLVMTypeOf(a), v), "")
#define ADDI(a, v) LLVMBuildAdd(b, a, em_int(LLVMTypeOf(a), v), "")

static em_val half_to_float(em *e, em_val h) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef f32 = em_like(h, e->f32), i32 = em_like(h, e->i32);
  if (e->cpu->f16c) return LLVMBuildFPExt(b, LLVMBuildBitCast(b, h, em_like(h, e->f16), ""), f32, "");
  em_val u = LLVMBuildZExt(b, h, i32, ""), a = AND(u, 0x7fff);
  /* The bits of |h| moved into place are |h| * 2^-112: subnormals come out right, infinities and NaN need their exponent. */
  em_val scaled = LLVMBuildFMul(b, LLVMBuildBitCast(b, SHL(a, 13), f32, ""), em_real(f32, 0x1p112), "");
  em_val special = LLVMBuildICmp(b, LLVMIntUGE, a, em_int(i32, 0x7c00), "");
  em_val bits = LLVMBuildSelect(b, special, LLVMBuildOr(b, SHL(a, 13), em_int(i32, 0x7f800000), ""), LLVMBuildBitCast(b, scaled, i32, ""), "");
  return LLVMBuildBitCast(b, LLVMBuildOr(b, bits, SHL(AND(u, 0x8000), 16), ""), f32, "");
}

/* As tt_f32_to_f16. */
static em_val float_to_half(em *e, em_val x) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef f32 = em_like(x, e->f32), i32 = em_like(x, e->i32), i16 = em_like(x, e->i16);
  if (e->cpu->f16c) return LLVMBuildBitCast(b, LLVMBuildFPTrunc(b, x, em_like(x, e->f16), ""), i16, "");
  em_val u = LLVMBuildBitCast(b, x, i32, ""), a = AND(u, 0x7fffffff);
  em_val odd = AND(SHR(a, 13), 1);
  em_val normal = SHR(LLVMBuildAdd(b, ADDI(a, 0xc8000fff), odd, ""), 13);
  em_val sum = LLVMBuildFAdd(b, LLVMBuildBitCast(b, a, f32, ""), em_real(f32, 0.5), "");
  em_val small = ADDI(LLVMBuildBitCast(b, sum, i32, ""), (uint32_t)-0x3f000000);
  em_val r = LLVMBuildSelect(b, LLVMBuildICmp(b, LLVMIntULT, a, em_int(i32, 0x38800000), ""), small, normal, "");
  r = LLVMBuildSelect(b, LLVMBuildICmp(b, LLVMIntUGE, a, em_int(i32, 0x47800000), ""), em_int(i32, 0x7c00), r, "");
  em_val nan = LLVMBuildOr(b, AND(SHR(a, 13), 0x3ff), em_int(i32, 0x7e00), "");
  r = LLVMBuildSelect(b, LLVMBuildICmp(b, LLVMIntUGT, a, em_int(i32, 0x7f800000), ""), nan, r, "");
  return LLVMBuildTrunc(b, LLVMBuildOr(b, r, AND(SHR(u, 16), 0x8000), ""), i16, "");
}

/* The bf16 nearest to x, in the upper half of an i32. */
static em_val float_to_bf16_bits(em *e, em_val x) {
  LLVMBuilderRef b = e->b;
  LLVMTypeRef i32 = em_like(x, e->i32);
  em_val u = LLVMBuildBitCast(b, x, i32, "");
  em_val rounded = LLVMBuildAdd(b, ADDI(u, 0x7fff), AND(SHR(u, 16), 1), "");
  em_val nan = LLVMBuildOr(b, u, em_int(i32, 0x400000), "");
  return LLVMBuildSelect(b, LLVMBuildFCmp(b, LLVMRealUNO, x, x, ""), nan, rounded, "");
}

em_val em_from_memory(em *e, tt_dtype t, em_val v) {
  LLVMBuilderRef b = e->b;
  switch (t) {
  case TT_BOOL: return LLVMBuildICmp(b, LLVMIntNE, v, em_int(LLVMTypeOf(v), 0), "");
  case TT_F16: return half_to_float(e, v);
  case TT_BF16: return LLVMBuildBitCast(b, SHL(LLVMBuildZExt(b, v, em_like(v, e->i32), ""), 16), em_like(v, e->f32), "");
  default: return v;
  }
}

em_val em_to_memory(em *e, tt_dtype t, em_val v) {
  LLVMBuilderRef b = e->b;
  switch (t) {
  case TT_BOOL: return LLVMBuildZExt(b, v, em_like(v, e->i8), "");
  case TT_F16: return float_to_half(e, v);
  case TT_BF16: return LLVMBuildTrunc(b, SHR(float_to_bf16_bits(e, v), 16), em_like(v, e->i16), "");
  default: return v;
  }
}

em_val em_round_to(em *e, tt_dtype t, em_val v) {
  LLVMBuilderRef b = e->b;
  if (t == TT_F16) return half_to_float(e, float_to_half(e, v));
  if (t == TT_BF16) return LLVMBuildBitCast(b, AND(float_to_bf16_bits(e, v), 0xffff0000), LLVMTypeOf(v), "");
  return v;
}

/* ---- casts */

/* Saturates; NaN gives 0. f64 to i64 and u64 have no better instruction before AVX-512. */
static em_val real_to_int(em *e, tt_dtype to, em_val v) {
  bool is_signed = tt_dtype_in(to, TT_SINT);
  LLVMTypeRef types[2] = {em_type(e, to, em_width(v)), LLVMTypeOf(v)};
  const char *name = is_signed ? "llvm.fptosi.sat" : "llvm.fptoui.sat";
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->context, id, types, 2), LLVMGetIntrinsicDeclaration(e->module, id, types, 2), &v, 1, "");
}

em_val em_cast(em *e, tt_dtype from, tt_dtype to, em_val v) {
  LLVMBuilderRef b = e->b;
  bool real_from = tt_dtype_in(from, TT_REAL), real_to = tt_dtype_in(to, TT_REAL);
  LLVMTypeRef type = em_type(e, to, em_width(v));
  if (from == to) return v;
  if (to == TT_BOOL) {
    if (real_from) return LLVMBuildFCmp(b, LLVMRealUNE, v, em_real(LLVMTypeOf(v), 0), "");
    return LLVMBuildICmp(b, LLVMIntNE, v, em_int(LLVMTypeOf(v), 0), "");
  }
  if (real_from && real_to) {
    if (to == TT_F64) return LLVMBuildFPExt(b, v, type, "");
    if (from == TT_F64) v = LLVMBuildFPTrunc(b, v, type, "");
    return em_round_to(e, to, v);
  }
  if (real_from) return real_to_int(e, to, v);
  bool is_signed = tt_dtype_in(from, TT_SINT);
  if (real_to) return em_round_to(e, to, is_signed ? LLVMBuildSIToFP(b, v, type, "") : LLVMBuildUIToFP(b, v, type, ""));
  size_t a = from == TT_BOOL ? 0 : tt_dtype_size(from), n = tt_dtype_size(to);
  if (a == n) return v;
  if (a > n) return LLVMBuildTrunc(b, v, type, "");
  return is_signed ? LLVMBuildSExt(b, v, type, "") : LLVMBuildZExt(b, v, type, "");
}

em_val em_bitcast(em *e, tt_dtype from, tt_dtype to, em_val v) {
  if (from == to) return v;
  em_val bits = em_to_memory(e, from, v);
  return em_from_memory(e, to, LLVMBuildBitCast(e->b, bits, em_memory_type(e, to, em_width(v)), ""));
}
