/* llvm.h: what the files of this module share: the state of one compilation and small builders over LLVM's. Nothing
 * outside of this folder sees LLVM.
 *
 * A value is scalar or a vector of `width` lanes (0: scalar). Inside of expressions f16 and bf16 are f32 and bool is i1; in memory
 * they are i16 and i8. All integer types are LLVM's iN; signedness is in the op. */
#ifndef TT_LLVM_H
#define TT_LLVM_H

#include <llvm-c/Core.h>

#include "../../runtime/image.h"
#include "../codegen.h"

typedef LLVMValueRef em_val;
typedef struct em_kernel em_kernel;      /* emit.c: state of the kernel being emitted */

/* One compiling thread: a context and what is asked of it often. */
typedef struct {
  LLVMContextRef context;
  LLVMModuleRef module;
  LLVMBuilderRef b;
  const cg_cpu *cpu;
  tt_error *err;
  LLVMTypeRef i1, i8, i16, i32, i64, f16, f32, f64, ptr;
  em_val function, table;                /* the function being emitted and its context argument: an rt_functions */
  em_val lanes[2];                       /* its stack space for calls lane by lane; NULL until the first */
  int active;                            /* lanes that count, of a vector being emitted */
  em_kernel *kernel;
} em;

/* value.c: types, constants, vectors, conversions between memory and expressions. */
void em_open(em *e, const cg_cpu *cpu, const char *module, tt_error *err);
void em_close(em *e);
LLVMTypeRef em_type(em *e, tt_dtype t, int width);             /* in expressions */
LLVMTypeRef em_memory_type(em *e, tt_dtype t, int width);
LLVMTypeRef em_widen(LLVMTypeRef scalar, int width);
int em_width(em_val v);                                         /* 0: scalar */
LLVMTypeRef em_like(em_val v, LLVMTypeRef scalar);              /* scalar, as wide as v */
em_val em_splat(em *e, em_val scalar, int width);
em_val em_int(LLVMTypeRef t, uint64_t v);                       /* a constant of t, splatted when t is a vector */
em_val em_real(LLVMTypeRef t, double v);
em_val em_lanes(LLVMTypeRef scalar, int width, int64_t start, int64_t step);    /* <start, start+step, ...> */
em_val em_mask(em *e, int width, int active);                   /* the first `active` lanes */
em_val em_shuffle(em *e, em_val a, em_val b, const int *lanes, int n);
em_val em_call(em *e, const char *intrinsic, LLVMTypeRef overload, em_val a, em_val b, em_val c);    /* b, c may be NULL */
em_val em_fma(em *e, em_val a, em_val b, em_val c);
em_val em_from_memory(em *e, tt_dtype t, em_val v);
em_val em_to_memory(em *e, tt_dtype t, em_val v);
em_val em_round_to(em *e, tt_dtype t, em_val v);                /* f32 rounded to f16 or bf16, as f32; else v */
em_val em_cast(em *e, tt_dtype from, tt_dtype to, em_val v);
em_val em_bitcast(em *e, tt_dtype from, tt_dtype to, em_val v);

/* op.c: one op on scalars or vectors. */
em_val em_op(em *e, ir_op op, tt_dtype in, tt_dtype out, em_val a, em_val b, em_val c);
em_val em_combine(em *e, ir_op op, tt_dtype t, em_val a, em_val b);          /* of a reduction */
em_val em_identity(em *e, ir_op op, tt_dtype t, int width);
/* The keys of the rounds, for `width` lanes (0: a scalar): they stay the same in every loop. */
typedef struct { em_val k[TT_RANDOM_ROUNDS][2]; } em_keys;
em_keys em_philox_keys(em *e, em_val seed, int width);
/* tt_random_half: index: any lanes, and keys of as many. */
em_val em_philox(em *e, const em_keys *keys, em_val step, em_val index, uint32_t stream);
/* The same of 32*n elements from `first`, a multiple of 32; keys of 4*n lanes. */
em_val em_philox_block(em *e, const em_keys *keys, em_val step, em_val first, uint32_t stream, int n);

/* math.c: exp, log, sin, ...; f32 and f64. The error bounds are at its top. */
em_val em_math(em *e, ir_op op, em_val a, em_val b);

/* emit.c: kernel as a function `symbol` of e->module. */
bool em_function(em *e, const lp_kernel *k, const char *symbol);
/* Opens a branch at the point of insertion, which may be in the middle of finished code: what is built next runs only if `condition`
 * (i1); em_branch_end returns to the common path and gives changed (from the branch) or else `otherwise`. */
typedef struct { LLVMBasicBlockRef from, into, join; em_val moved; } em_branch;
em_branch em_branch_begin(em *e, em_val condition);
em_val em_branch_end(em *e, em_branch *branch, em_val changed, em_val otherwise);
/* The same for a loop: begin, n phis, the code, end. It runs `count` times; phi[i] is start[i], then next[i]. */
typedef struct { LLVMBasicBlockRef from, into, after; em_val moved, counter; } em_repeat;
em_repeat em_repeat_begin(em *e);
void em_repeat_end(em *e, em_repeat *repeat, int count, const em_val *phi, const em_val *start, const em_val *next, int n);

/* object.c: the image of an object file's one kernel, the function `symbol`. */
bool em_image(const char *object, size_t size, const char *symbol, const char *kernel, rt_image *image, tt_error *err);

#endif
