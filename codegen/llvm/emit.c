/* emit.c: one kernel of the loop language becomes one LLVM function
 *
 *     void NAME(ptr args, i64 begin, i64 end, ptr scratch, ptr context)          rt_kernel
 *
 * in SSA form and explicit vectors, so that no pass needs to run over it: locals are values, loops make phis of those that
 * they change, and an expression is emitted once, in the outermost scope where all that it depends on is known.
 *
 * A scope is an open loop, if or guard. `pre`, the branch into it, marks where code of the scopes around it can still be
 * inserted. What an expression depends on is a bit set each of loop variables, locals and written buffers (by number modulo
 * 64: a collision only keeps it further inside). Loads do not leave ifs and guards, because the guard may be what makes
 * them legal; loops are entered only when they run at least once.
 *
 * A vector loop is emitted as full vectors and a remainder, with `width` lanes of which the first `active` count. Locals that it
 * reduces into become vectors of partial results for its duration. Guards inside of it are masks: inactive lanes load from
 * element 0, and everything but memory is total. */
#include <stdlib.h>
#include <string.h>

#include "../loops_inner.h"
#include "llvm.h"

typedef struct { uint64_t vars, locals, loaded; bool loads; } em_needs;
typedef struct { em_val value; uint32_t serial, clock; int depth; } em_cached;
typedef struct {
  uint32_t serial;
  uint64_t vars, locals, stored;     /* what is made or changed in it */
  bool guarded;                      /* an if or a mask: loads stay inside */
  em_val pre;                        /* NULL: no block of its own */
} em_scope;
typedef struct { em_val *values; int width; bool live; } em_local;
typedef struct { uint8_t *flags; uint16_t *ops; uint64_t locals, stored; } em_changes;     /* flags, ops: by local */
enum { CHANGED = 1, DECLARED = 2, REDUCED = 4 };
enum { NATURAL, LANE0, SPLAT, NARROW, N_CACHES };
enum { MAX_DEPTH = 128 };

struct em_kernel {
  const lp_kernel *k;
  em_val *pointers;
  em_needs *needs;
  em_cached *cache[N_CACHES];
  uint32_t *vector_of;               /* by expression: 2*generation + is it a vector */
  uint32_t generation, serial, clock;
  em_scope scopes[MAX_DEPTH];
  int depth;
  em_val *vars;                      /* value of each open loop variable; of lane 0 for the vector's */
  int64_t *var_multiple;             /* a power of two that divides it */
  em_local *locals;
  uint32_t local_clock[64], buffer_clock[64];       /* when one of these last changed */
  int width, active, vector_var;
  int64_t vector_step;
  em_val guard, mask;                /* conditions around the present expression: i1, and one a lane; NULL: none */
  em_val at;                         /* building before this branch; NULL: at the end of the code */
  lp_block *blocks;                  /* memory */
  bool failed;
};

static em_val value(em *e, lp_ref r);
static em_val wide(em *e, lp_ref r);
static void statements(em *e, const lp_stmt *s);

static void *take(em *e, size_t n, size_t size) {
  lp_block *b = calloc(1, sizeof *b + 8 + n * size);
  if (!b) {
    tt_fail(e->err, TT_NO_MEMORY, "error: no memory to compile %s\n  at codegen/llvm/emit.c\n  fix: free some", e->kernel->k->name);
    e->kernel->failed = true;
    return NULL;
  }
  b->next = e->kernel->blocks;
  e->kernel->blocks = b;
  return (void *)(((uintptr_t)(b + 1) + 7) & ~(uintptr_t)7);
}

static em_val bad(em *e, const char *what, lp_ref r) {
  tt_fail(e->err, TT_INTERNAL, "error: kernel %s: %s (expression %u)\n  at codegen/llvm/emit.c\n  fix: report this with the output of dump --stage=loops",
          e->kernel->k->name, what, r);
  e->kernel->failed = true;
  return em_int(e->i64, 0);
}

static uint64_t bit(int64_t id) { return (uint64_t)1 << (id & 63); }
static const lp_expr *at(em *e, lp_ref r) { return &e->kernel->k->exprs[r]; }

/* ---- points of insertion */

typedef struct { em_val at; LLVMBasicBlockRef block; } em_point;

static em_point go_to(em *e, int level) {
  em_kernel *s = e->kernel;
  em_point here = {s->at, LLVMGetInsertBlock(e->b)};
  for (int d = level + 1; d <= s->depth; d++) {
    if (!s->scopes[d].pre) continue;
    if (s->scopes[d].pre != s->at) LLVMPositionBuilderBefore(e->b, s->at = s->scopes[d].pre);
    break;
  }
  return here;
}

static void go_back(em *e, em_point p) {
  em_kernel *s = e->kernel;
  if (s->at == p.at) return;
  s->at = p.at;
  if (p.at) LLVMPositionBuilderBefore(e->b, p.at);
  else LLVMPositionBuilderAtEnd(e->b, p.block);
}

static LLVMBasicBlockRef block(em *e) { return LLVMAppendBasicBlockInContext(e->context, e->function, ""); }

/* Cuts the code at the point of insertion, so that `after` goes on from there; building goes on at the end of what was before. */
static em_val cut(em *e, LLVMBasicBlockRef before, LLVMBasicBlockRef after) {
  em_val moved = e->kernel->at;
  if (!moved) return NULL;
  LLVMInstructionRemoveFromParent(moved);
  LLVMPositionBuilderAtEnd(e->b, after);
  LLVMInsertIntoBuilder(e->b, moved);
  LLVMPositionBuilderAtEnd(e->b, before);
  return moved;
}

static void resume(em *e, LLVMBasicBlockRef after, em_val moved) {
  if (moved) LLVMPositionBuilderBefore(e->b, moved);
  else LLVMPositionBuilderAtEnd(e->b, after);
}

em_branch em_branch_begin(em *e, em_val condition) {
  em_branch r = {LLVMGetInsertBlock(e->b), block(e), block(e), NULL};
  r.moved = cut(e, r.from, r.join);
  LLVMBuildCondBr(e->b, condition, r.into, r.join);
  LLVMPositionBuilderAtEnd(e->b, r.into);
  return r;
}

em_val em_branch_end(em *e, em_branch *r, em_val changed, em_val otherwise) {
  LLVMBasicBlockRef end = LLVMGetInsertBlock(e->b);
  LLVMBuildBr(e->b, r->join);
  resume(e, r->join, r->moved);
  em_val phi = LLVMBuildPhi(e->b, LLVMTypeOf(changed), "");
  LLVMAddIncoming(phi, (em_val[]){changed, otherwise}, (LLVMBasicBlockRef[]){end, r->from}, 2);
  return phi;
}

em_repeat em_repeat_begin(em *e) {
  em_repeat r = {LLVMGetInsertBlock(e->b), block(e), block(e), NULL, NULL};
  r.moved = cut(e, r.from, r.after);
  LLVMBuildBr(e->b, r.into);
  LLVMPositionBuilderAtEnd(e->b, r.into);
  r.counter = LLVMBuildPhi(e->b, e->i32, "");
  return r;
}

void em_repeat_end(em *e, em_repeat *r, int count, const em_val *phi, const em_val *start, const em_val *next, int n) {
  em_val more = LLVMBuildAdd(e->b, r->counter, em_int(e->i32, 1), "");
  LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntULT, more, em_int(e->i32, (unsigned)count), ""), r->into, r->after);
  LLVMBasicBlockRef from[2] = {r->from, r->into};
  LLVMAddIncoming(r->counter, (em_val[]){em_int(e->i32, 0), more}, from, 2);
  for (int i = 0; i < n; i++) LLVMAddIncoming(phi[i], (em_val[]){start[i], next[i]}, from, 2);
  resume(e, r->after, r->moved);
}

/* ---- what expressions depend on */

static void find_needs(em *e) {
  em_kernel *s = e->kernel;
  for (lp_ref r = 1; r < s->k->n_exprs; r++) {
    const lp_expr *x = at(e, r);
    em_needs n = {0};
    for (int i = 0; i < 3; i++) {
      if (!x->a[i]) continue;
      em_needs a = s->needs[x->a[i]];
      n.vars |= a.vars, n.locals |= a.locals, n.loaded |= a.loaded, n.loads |= a.loads;
    }
    if (x->kind == LX_VAR) n.vars |= bit(x->imm);
    if (x->kind == LX_LOCAL) n.locals |= bit(x->imm);
    if (x->kind == LX_LOAD) {
      n.loads = true;
      if (s->k->buffers[x->imm].written) n.loaded |= bit(x->imm);
    }
    s->needs[r] = n;
  }
}

static int level_of(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  em_needs n = s->needs[r];
  for (int d = s->depth; d > 0; d--) {
    const em_scope *x = &s->scopes[d];
    if (n.vars & x->vars || n.locals & x->locals || n.loaded & x->stored || (n.loads && x->guarded)) return d;
  }
  return 0;
}

static bool is_vector(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  if (!r || !s->width) return false;
  if (s->vector_of[r] >> 1 == s->generation) return s->vector_of[r] & 1;
  const lp_expr *x = at(e, r);
  bool v = x->kind == LX_VAR ? x->imm == s->vector_var : x->kind == LX_LOCAL ? s->locals[x->imm].width > 0 : false;
  if (x->kind != LX_LOCAL)
    for (int i = 0; i < 3; i++) v |= is_vector(e, x->a[i]);
  s->vector_of[r] = s->generation << 1 | v;
  return v;
}

/* r = coefficient * lane + what is the same in all lanes? */
static bool affine(em *e, lp_ref r, int64_t *coefficient) {
  em_kernel *s = e->kernel;
  const lp_expr *x = at(e, r);
  int64_t a, b;
  *coefficient = 0;
  if (!is_vector(e, r)) return true;
  if (x->kind == LX_VAR) return *coefficient = s->vector_step, true;
  if (x->kind != LX_OP || x->dtype != TT_I64) return false;
  if (x->op == IR_mul) {
    bool left = at(e, x->a[0])->kind == LX_CONST, right = at(e, x->a[1])->kind == LX_CONST;
    if ((!left && !right) || !affine(e, x->a[left], &a)) return false;
    return *coefficient = a * at(e, x->a[!left])->imm, true;
  }
  if ((x->op != IR_add && x->op != IR_sub) || !affine(e, x->a[0], &a) || !affine(e, x->a[1], &b)) return false;
  return *coefficient = x->op == IR_add ? a + b : a - b, true;
}

/* A power of two, at most 64, that divides lane 0 of r. */
static int64_t multiple_of(em *e, lp_ref r) {
  const lp_expr *x = at(e, r);
  if (x->kind == LX_CONST) return x->imm & 63 ? x->imm & -x->imm : 64;
  if (x->kind == LX_VAR) return e->kernel->var_multiple[x->imm];
  if (x->kind != LX_OP || x->dtype != TT_I64 || (x->op != IR_add && x->op != IR_sub && x->op != IR_mul)) return 1;
  int64_t a = multiple_of(e, x->a[0]), b = multiple_of(e, x->a[1]), r2 = x->op == IR_mul ? a * b : a < b ? a : b;
  return r2 > 64 ? 64 : r2;
}

/* ---- cached values */

static em_val cached(em *e, int which, lp_ref r) {
  em_kernel *s = e->kernel;
  em_cached *c = &s->cache[which][r];
  if (!c->value || c->depth > s->depth || s->scopes[c->depth].serial != c->serial) return NULL;
  em_needs n = s->needs[r];
  for (uint64_t m = n.locals; m; m &= m - 1)
    if (s->local_clock[__builtin_ctzll(m)] > c->clock) return NULL;
  for (uint64_t m = n.loaded; m; m &= m - 1)
    if (s->buffer_clock[__builtin_ctzll(m)] > c->clock) return NULL;
  if (which == SPLAT && em_width(c->value) != s->width) return NULL;
  return c->value;
}

static em_val keep(em *e, int which, lp_ref r, int level, em_val v) {
  em_kernel *s = e->kernel;
  s->cache[which][r] = (em_cached){v, s->scopes[level].serial, s->clock, level};
  return v;
}

static void touch_local(em *e, int64_t l) { e->kernel->local_clock[l & 63] = ++e->kernel->clock; }
static void touch_buffer(em *e, int64_t b) { e->kernel->buffer_clock[b & 63] = ++e->kernel->clock; }

static void push(em *e, em_scope scope) {
  em_kernel *s = e->kernel;
  if (s->depth + 1 >= MAX_DEPTH) { bad(e, "loops are nested too deeply", 0); return; }
  scope.serial = ++s->serial;
  s->scopes[++s->depth] = scope;
}
static void pop(em *e) { e->kernel->depth--; }

/* ---- expressions */

static em_val both(em *e, em_val a, em_val b) { return !a ? b : !b ? a : LLVMBuildAnd(e->b, a, b, ""); }

static em_val any_lane(em *e, em_val mask) {
  em_val bits = LLVMBuildBitCast(e->b, mask, LLVMIntTypeInContext(e->context, (unsigned)em_width(mask)), "");
  return LLVMBuildICmp(e->b, LLVMIntNE, bits, em_int(LLVMTypeOf(bits), 0), "");
}

static em_val constant(em *e, const lp_expr *x) {
  double d;
  float f;
  uint32_t word = (uint32_t)x->imm;
  switch (x->dtype) {
  case TT_F64: memcpy(&d, &x->imm, 8); return LLVMConstBitCast(em_int(e->i64, (uint64_t)x->imm), e->f64);
  case TT_F32: case TT_F16: case TT_BF16: memcpy(&f, &word, 4); return LLVMConstBitCast(em_int(e->i32, word), e->f32);
  default: return em_int(em_type(e, x->dtype, 0), (uint64_t)x->imm);
  }
}

/* r as it is in lane 0. r is affine. */
static em_val lane0(em *e, lp_ref r) {
  if (!is_vector(e, r)) return value(e, r);
  const lp_expr *x = at(e, r);
  if (x->kind == LX_VAR) return e->kernel->vars[x->imm];
  em_val v = cached(e, LANE0, r);
  if (v) return v;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  em_val a = lane0(e, x->a[0]), b = lane0(e, x->a[1]);
  v = em_op(e, (ir_op)x->op, TT_I64, TT_I64, a, b, NULL);
  go_back(e, p);
  return keep(e, LANE0, r, level, v);
}

static bool is_index_op(const lp_expr *x) {
  return x->kind == LX_OP && x->dtype == TT_I64 && (x->op == IR_add || x->op == IR_sub || x->op == IR_mul || x->op == IR_div || x->op == IR_fmod);
}

/* Vector index arithmetic in i32, where all parts are known to fit. */
static bool fits_i32(em *e, lp_ref r) {
  const lp_expr *x = at(e, r);
  const lp_fact *f = lp_fact_of(e->kernel->k, r);
  if (x->dtype != TT_I64 || !lp_known(f) || f->lo < 0 || f->hi > INT32_MAX - 4096) return false;      /* lanes past the end count on */
  return !is_index_op(x) || (fits_i32(e, x->a[0]) && fits_i32(e, x->a[1]));
}

static em_val narrow(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  if (!is_vector(e, r)) return em_splat(e, LLVMBuildTrunc(e->b, value(e, r), e->i32, ""), s->width);
  const lp_expr *x = at(e, r);
  em_val v = cached(e, NARROW, r);
  if (v) return v;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  if (x->kind == LX_VAR) {
    em_val first = LLVMBuildTrunc(e->b, s->vars[x->imm], e->i32, "");
    v = LLVMBuildAdd(e->b, em_splat(e, first, s->width), em_lanes(e->i32, s->width, 0, s->vector_step), "");
  } else if (is_index_op(x)) {
    v = em_op(e, (ir_op)x->op, TT_U32, TT_U32, narrow(e, x->a[0]), narrow(e, x->a[1]), NULL);
  } else {
    v = LLVMBuildTrunc(e->b, value(e, r), em_widen(e->i32, s->width), "");
  }
  go_back(e, p);
  return keep(e, NARROW, r, level, v);
}

static em_val address(em *e, int64_t buffer, em_val index) {
  LLVMTypeRef t = em_memory_type(e, e->kernel->k->buffers[buffer].dtype, 0);
  return LLVMBuildGEP2(e->b, t, e->kernel->pointers[buffer], &index, 1, "");
}

static em_val load_at(em *e, int64_t buffer, em_val pointer, int width) {
  const lp_buffer *f = &e->kernel->k->buffers[buffer];
  em_val v = LLVMBuildLoad2(e->b, em_memory_type(e, f->dtype, width), pointer, "");
  LLVMSetAlignment(v, (unsigned)tt_dtype_size(f->dtype));
  if (!f->written) {
    em_val none = LLVMMetadataAsValue(e->context, LLVMMDNodeInContext2(e->context, NULL, 0));
    LLVMSetMetadata(v, LLVMGetMDKindIDInContext(e->context, "invariant.load", 14), none);
  }
  return v;
}

static bool has_masks(em *e, tt_dtype t) { return e->cpu->masks && (tt_dtype_size(t) >= 4 || e->cpu->avx512); }

static em_val masked_load(em *e, tt_dtype t, em_val pointer, em_val mask) {
  LLVMTypeRef types[2] = {em_memory_type(e, t, em_width(mask)), e->ptr};
  unsigned id = LLVMLookupIntrinsicID("llvm.masked.load", 16);
  em_val args[4] = {pointer, em_int(e->i32, tt_dtype_size(t)), mask, LLVMConstNull(types[0])};
  return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->context, id, types, 2), LLVMGetIntrinsicDeclaration(e->module, id, types, 2), args, 4, "");
}

static em_val lane(em *e, em_val v, int i) { return em_width(v) ? LLVMBuildExtractElement(e->b, v, em_int(e->i64, (unsigned)i), "") : v; }

/* Element by element. first: lane 0's index when the lanes are `stride` apart, else index has them all. */
static em_val gather(em *e, int64_t buffer, em_val first, int64_t stride, em_val index, em_val mask, int active) {
  em_kernel *s = e->kernel;
  tt_dtype t = s->k->buffers[buffer].dtype;
  em_val v = LLVMConstNull(em_memory_type(e, t, s->width)), base = first ? address(e, buffer, first) : NULL;
  if (mask && !index) {
    em_val steps = em_lanes(e->i64, s->width, 0, stride);
    index = LLVMBuildAdd(e->b, em_splat(e, first, s->width), steps, "");
  }
  if (mask) index = LLVMBuildSelect(e->b, mask, index, em_int(LLVMTypeOf(index), 0), "");
  for (int i = 0; i < active; i++) {
    em_val p;
    if (index) {
      em_val k = lane(e, index, i);
      p = address(e, buffer, LLVMTypeOf(k) == e->i32 ? LLVMBuildZExt(e->b, k, e->i64, "") : k);
    } else {
      em_val k = em_int(e->i64, (uint64_t)(i * stride));
      p = LLVMBuildGEP2(e->b, em_memory_type(e, t, 0), base, &k, 1, "");
    }
    v = LLVMBuildInsertElement(e->b, v, load_at(e, buffer, p, 0), em_int(e->i64, (unsigned)i), "");
  }
  return v;
}

static em_val load(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  const lp_expr *x = at(e, r);
  const lp_buffer *f = &s->k->buffers[x->imm];
  tt_dtype t = f->dtype;
  bool vector = is_vector(e, r), own = x->a[1] != 0;
  int width = vector ? s->width : 0;
  em_val otherwise = !own ? NULL : x->a[2] ? (vector ? wide(e, x->a[2]) : value(e, x->a[2])) : LLVMConstNull(em_type(e, t, width));
  if (f->count == 0) return own ? otherwise : LLVMConstNull(em_type(e, t, width));
  em_val guard = s->guard, mask = s->mask, outer_guard = s->guard, outer_mask = s->mask;
  if (own) {
    em_val g = value(e, x->a[1]);
    if (em_width(g)) mask = both(e, mask, g);
    else guard = both(e, guard, g);
  }
  if (own && s->needs[x->a[0]].loads) push(e, (em_scope){.guarded = true});      /* the index may hold loads that the guard protects */
  bool pushed = own && s->needs[x->a[0]].loads;
  s->guard = guard, s->mask = mask;
  int64_t stride = 0;
  bool is_affine = affine(e, x->a[0], &stride);
  em_val first = is_affine ? lane0(e, x->a[0]) : NULL;
  em_val index = is_affine ? NULL : fits_i32(e, x->a[0]) ? narrow(e, x->a[0]) : value(e, x->a[0]);
  s->guard = outer_guard, s->mask = outer_mask;
  if (pushed) pop(e);

  em_val v;
  if (!width || (is_affine && stride == 0)) {      /* one element for all lanes */
    em_val c = both(e, guard, mask ? any_lane(e, mask) : NULL);
    if (c) first = LLVMBuildSelect(e->b, c, first, em_int(e->i64, 0), "");
    v = em_splat(e, em_from_memory(e, t, load_at(e, x->imm, address(e, x->imm, first), 0)), width);
    if (own && width && mask) v = LLVMBuildSelect(e->b, guard ? both(e, mask, em_splat(e, guard, width)) : mask, v, otherwise, "");
    else if (own) v = LLVMBuildSelect(e->b, guard, v, otherwise, "");
    return v;
  }
  bool partial = s->active < s->width;
  if (is_affine && stride == 1 && !mask && !partial && (!guard || f->count >= s->width)) {
    if (guard) first = LLVMBuildSelect(e->b, guard, first, em_int(e->i64, 0), "");
    v = em_from_memory(e, t, load_at(e, x->imm, address(e, x->imm, first), width));
    return own ? LLVMBuildSelect(e->b, guard, v, otherwise, "") : v;
  }
  em_val lanes = both(e, mask, guard ? em_splat(e, guard, width) : NULL);      /* dynamic conditions */
  if (is_affine && stride == 1 && (!lanes || has_masks(e, t)))
    v = masked_load(e, t, address(e, x->imm, first), both(e, lanes, partial ? em_mask(e, width, s->active) : NULL));
  else
    v = gather(e, x->imm, first, stride, index, lanes, s->active);
  v = em_from_memory(e, t, v);
  return own ? LLVMBuildSelect(e->b, lanes, v, otherwise, "") : v;
}

static em_val random_words(em *e, const lp_expr *x) {
  em_kernel *s = e->kernel;
  em_val seed = value(e, x->a[0]), step = value(e, x->a[1]);
  int64_t stride = 0;
  int n = s->width / 16;
  if (is_vector(e, x->a[2]) && (s->width == 16 || s->width == 32 || s->width == 64) && affine(e, x->a[2], &stride) && stride == 1 &&
      multiple_of(e, x->a[2]) % s->width == 0)
    return em_philox_block(e, seed, step, lane0(e, x->a[2]), (uint32_t)x->imm, n);
  return em_philox(e, seed, step, value(e, x->a[2]), (uint32_t)x->imm);
}

static em_val operation(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  const lp_expr *x = at(e, r);
  tt_dtype in = (tt_dtype)at(e, x->a[0])->dtype, out = (tt_dtype)x->dtype;
  bool vector = is_vector(e, r), is_division = x->op == IR_div || x->op == IR_fmod;
  bool compares = ir_ops[x->op].gives_bool;
  if (in == TT_I64 && vector && (compares || x->op == IR_cast) && fits_i32(e, x->a[0]) && (!x->a[1] || fits_i32(e, x->a[1])) &&
      is_vector(e, x->a[0]))
    return em_op(e, (ir_op)x->op, TT_I32, out, narrow(e, x->a[0]), x->a[1] ? narrow(e, x->a[1]) : NULL, NULL);
  if (vector && is_index_op(x) && fits_i32(e, r))
    return LLVMBuildZExt(e->b, narrow(e, r), em_widen(e->i64, s->width), "");
  if (in == TT_I64 && is_division && lp_fact_of(s->k, x->a[0])->lo >= 0 && lp_fact_of(s->k, x->a[1])->lo > 0) in = out = TT_U64;
  em_val v[3] = {0};
  for (int i = 0; i < 3; i++)
    if (x->a[i]) v[i] = vector ? wide(e, x->a[i]) : value(e, x->a[i]);
  return em_op(e, (ir_op)x->op, in, out, v[0], v[1], v[2]);
}

/* r in its natural form: scalar unless something in it is a vector. */
static em_val value(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  const lp_expr *x = at(e, r);
  int64_t index = 0;
  if (x->kind == LX_CONST) return constant(e, x);
  if (x->kind == LX_VAR && !is_vector(e, r)) {
    if (!s->vars[x->imm]) return bad(e, "a loop variable is used outside of its loop", r);
    return s->vars[x->imm];
  }
  if (x->kind == LX_LOCAL) {
    const em_local *l = &s->locals[x->imm];
    if (x->a[0] && (at(e, x->a[0])->kind != LX_CONST)) return bad(e, "the index of a local is not constant", r);
    if (x->a[0]) index = at(e, x->a[0])->imm;
    if (!l->live || index < 0 || index >= s->k->locals[x->imm].count) return bad(e, "a local is used outside of its scope", r);
    return l->values[index];
  }
  em_val v = cached(e, NATURAL, r);
  if (v) return v;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  switch (x->kind) {
  case LX_VAR:
    v = LLVMBuildAdd(e->b, em_splat(e, s->vars[x->imm], s->width), em_lanes(e->i64, s->width, 0, s->vector_step), "");
    break;
  case LX_OP: v = operation(e, r); break;
  case LX_LOAD: v = load(e, r); break;
  case LX_PHILOX: v = random_words(e, x); break;
  case LX_FMA: {
    bool vector = is_vector(e, r);
    em_val a[3];
    for (int i = 0; i < 3; i++) a[i] = vector ? wide(e, x->a[i]) : value(e, x->a[i]);
    if (tt_dtype_in((tt_dtype)x->dtype, TT_REAL)) v = em_round_to(e, (tt_dtype)x->dtype, em_fma(e, a[0], a[1], a[2]));
    else v = LLVMBuildAdd(e->b, LLVMBuildMul(e->b, a[0], a[1], ""), a[2], "");
    break;
  }
  default: v = bad(e, "unknown kind of expression", r);
  }
  go_back(e, p);
  return keep(e, NATURAL, r, level, v);
}

/* r in as many lanes as the loop has. */
static em_val wide(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  em_val v = value(e, r);
  if (!s->width || em_width(v)) return v;
  if (LLVMIsConstant(v) || at(e, r)->kind == LX_LOCAL) return em_splat(e, v, s->width);
  em_val w = cached(e, SPLAT, r);
  if (w) return w;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  w = em_splat(e, v, s->width);
  go_back(e, p);
  return keep(e, SPLAT, r, level, w);
}

/* ---- statements */

static void scan(const lp_stmt *s, em_changes *c) {
  for (; s; s = s->next) {
    if (s->kind == LS_SET || s->kind == LS_REDUCE || s->kind == LS_LOCAL) {
      c->locals |= bit(s->local);
      c->flags[s->local] |= s->kind == LS_LOCAL ? DECLARED : s->kind == LS_SET ? CHANGED : CHANGED | REDUCED;
      if (s->kind == LS_REDUCE) c->ops[s->local] = s->op;
    }
    if (s->kind == LS_STORE) c->stored |= bit(s->buffer);
    if (s->body) scan(s->body, c);
  }
}

static bool find_changes(em *e, const lp_stmt *body, em_changes *c) {
  size_t n = (size_t)e->kernel->k->n_locals + 1;
  *c = (em_changes){take(e, n, 1), take(e, n, sizeof(uint16_t)), 0, 0};
  if (!c->flags || !c->ops) return false;
  scan(body, c);
  return true;
}

/* Declared around the body and changed in it. */
static bool carried(em *e, const em_changes *c, int l) {
  return c->flags[l] & CHANGED && !(c->flags[l] & DECLARED) && e->kernel->locals[l].live;
}

static void touch(em *e, const em_changes *c) {
  em_kernel *s = e->kernel;
  ++s->clock;
  for (int i = 0; i < 64; i++) {
    if (c->locals >> i & 1) s->local_clock[i] = s->clock;
    if (c->stored >> i & 1) s->buffer_clock[i] = s->clock;
  }
}

/* var from begin while < end, at least once. */
static void loop(em *e, int var, em_val begin, em_val end, int64_t step, const lp_stmt *body, const em_changes *c) {
  em_kernel *s = e->kernel;
  LLVMBasicBlockRef inside = block(e), after = block(e);
  em_val pre = LLVMBuildBr(e->b, inside);
  LLVMPositionBuilderAtEnd(e->b, inside);
  em_val counter = LLVMBuildPhi(e->b, e->i64, s->k->vars[var] ? s->k->vars[var] : "");
  size_t n = 0;
  for (int l = 0; l < s->k->n_locals; l++) n += carried(e, c, l) ? (size_t)s->k->locals[l].count : 0;
  em_val *phis = take(e, n + 1, sizeof *phis), *starts = take(e, n + 1, sizeof *starts);
  if (!phis || !starts) return;
  size_t at_phi = 0;
  for (int l = 0; l < s->k->n_locals; l++) {
    if (!carried(e, c, l)) continue;
    for (int i = 0; i < s->k->locals[l].count; i++, at_phi++) {
      starts[at_phi] = s->locals[l].values[i];
      s->locals[l].values[i] = phis[at_phi] = LLVMBuildPhi(e->b, LLVMTypeOf(starts[at_phi]), "");
    }
  }
  s->vars[var] = counter;
  touch(e, c);
  push(e, (em_scope){.vars = bit(var), .locals = c->locals, .stored = c->stored, .pre = pre});
  statements(e, body);
  pop(e);
  em_val next = LLVMBuildAdd(e->b, counter, em_int(e->i64, (uint64_t)step), "");
  LLVMBasicBlockRef from[2] = {LLVMGetInstructionParent(pre), LLVMGetInsertBlock(e->b)};
  LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, next, end, ""), inside, after);
  LLVMAddIncoming(counter, (em_val[]){begin, next}, from, 2);
  at_phi = 0;
  for (int l = 0; l < s->k->n_locals; l++) {
    if (!carried(e, c, l)) continue;
    for (int i = 0; i < s->k->locals[l].count; i++, at_phi++) LLVMAddIncoming(phis[at_phi], (em_val[]){starts[at_phi], s->locals[l].values[i]}, from, 2);
  }
  LLVMPositionBuilderAtEnd(e->b, after);
  s->vars[var] = NULL;
  touch(e, c);
}

/* n iterations from `begin`, one after the other or, when width is set, n steps of width lanes. */
static void run(em *e, const lp_stmt *f, int64_t begin, int64_t n, int64_t step, const em_changes *c) {
  em_kernel *s = e->kernel;
  int64_t both_of = begin | step | 64;
  s->var_multiple[f->var] = both_of & -both_of;
  if (n > 1) {
    loop(e, f->var, em_int(e->i64, (uint64_t)begin), em_int(e->i64, (uint64_t)(begin + n * step)), step, f->body, c);
    return;
  }
  s->vars[f->var] = em_int(e->i64, (uint64_t)begin);
  touch(e, c);
  push(e, (em_scope){.vars = bit(f->var), .locals = c->locals, .stored = c->stored});
  statements(e, f->body);
  pop(e);
  touch(e, c);
  s->vars[f->var] = NULL;
}

/* All lanes into one, always in the same order: halves onto halves. */
static em_val horizontal(em *e, ir_op op, tt_dtype t, em_val v) {
  em_val odd = NULL;
  for (int n = em_width(v); n > 1; n /= 2) {
    if (n & 1) {
      em_val last = lane(e, v, n - 1);
      odd = odd ? em_combine(e, op, t, last, odd) : last;
    }
    int low[256], high[256];
    for (int i = 0; i < n / 2; i++) low[i] = i, high[i] = n / 2 + i;
    v = em_combine(e, op, t, em_shuffle(e, v, NULL, low, n / 2), em_shuffle(e, v, NULL, high, n / 2));
  }
  v = lane(e, v, 0);
  return odd ? em_combine(e, op, t, v, odd) : v;
}

/* n steps of `width` lanes from begin, `active` of them counting. */
static void vectors(em *e, const lp_stmt *f, int64_t begin, int64_t n, int width, int active, const em_changes *c) {
  em_kernel *s = e->kernel;
  em_val **saved = take(e, (size_t)s->k->n_locals + 1, sizeof *saved);
  if (!saved) return;
  for (int l = 0; l < s->k->n_locals; l++) {
    if (!carried(e, c, l) || !(c->flags[l] & REDUCED)) continue;
    int count = s->k->locals[l].count;
    saved[l] = take(e, (size_t)count, sizeof **saved);
    if (!saved[l]) return;
    memcpy(saved[l], s->locals[l].values, (size_t)count * sizeof **saved);
    for (int i = 0; i < count; i++) s->locals[l].values[i] = em_identity(e, (ir_op)c->ops[l], s->k->locals[l].dtype, width);
    s->locals[l].width = width;
  }
  s->width = width, s->active = e->active = active, s->vector_var = f->var, s->vector_step = f->step;
  s->generation++;
  run(e, f, begin, n, f->step * width, c);
  s->width = s->active = 0, s->vector_var = -1;
  s->generation++;
  for (int l = 0; l < s->k->n_locals; l++) {
    if (c->flags[l] & DECLARED) s->locals[l].width = 0, s->locals[l].live = false;
    if (!saved[l]) continue;
    tt_dtype t = s->k->locals[l].dtype;
    for (int i = 0; i < s->k->locals[l].count; i++)
      s->locals[l].values[i] = em_combine(e, (ir_op)c->ops[l], t, saved[l][i], horizontal(e, (ir_op)c->ops[l], t, s->locals[l].values[i]));
    s->locals[l].width = 0;
  }
}

static void for_loop(em *e, const lp_stmt *f) {
  em_kernel *s = e->kernel;
  int64_t step = f->step > 0 ? f->step : 1, n = f->end > f->begin ? (f->end - f->begin + step - 1) / step : 0, at_lane = f->begin;
  em_changes c;
  if (n == 0 || !find_changes(e, f->body, &c)) return;
  lp_stmt whole = *f;
  whole.step = step;
  if (f->lanes <= 1 || s->width) { run(e, &whole, f->begin, n, step, &c); return; }
  if (f->lanes > 256) { bad(e, "more than 256 lanes", 0); return; }
  int64_t full = n / f->lanes;
  if (full) vectors(e, &whole, at_lane, full, f->lanes, f->lanes, &c);
  at_lane += full * f->lanes * step, n -= full * f->lanes;
  while (n > 1) {      /* the rest: one vector of the next power of two, masked; or without masks, powers of two down to 4 */
    int width = 2;
    while (width < n) width *= 2;
    if (!e->cpu->masks && width > n) width /= 2;
    if (!e->cpu->masks && width < 4) break;
    int active = width < n ? width : (int)n;
    vectors(e, &whole, at_lane, 1, width, active, &c);
    at_lane += active * step, n -= active;
  }
  if (n) run(e, &whole, at_lane, n, step, &c);
}

static void masked_store(em *e, tt_dtype t, em_val v, em_val pointer, em_val mask, bool scatter) {
  LLVMTypeRef types[2] = {LLVMTypeOf(v), scatter ? LLVMTypeOf(pointer) : e->ptr};
  const char *name = scatter ? "llvm.masked.scatter" : "llvm.masked.store";
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  em_val args[4] = {v, pointer, em_int(e->i32, tt_dtype_size(t)), mask};
  LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->context, id, types, 2), LLVMGetIntrinsicDeclaration(e->module, id, types, 2), args, 4, "");
}

static void store_at(em *e, tt_dtype t, em_val v, em_val pointer) { LLVMSetAlignment(LLVMBuildStore(e->b, v, pointer), (unsigned)tt_dtype_size(t)); }

static void store_value(em *e, const lp_stmt *x) {
  em_kernel *s = e->kernel;
  const lp_buffer *f = &s->k->buffers[x->buffer];
  tt_dtype t = f->dtype;
  int64_t stride = 0;
  bool is_affine = affine(e, x->index, &stride), partial = s->active < s->width;
  bool vector = s->width && (is_vector(e, x->index) || is_vector(e, x->value) || s->mask);
  if (f->count == 0) return;
  if (!vector) {
    store_at(e, t, em_to_memory(e, t, value(e, x->value)), address(e, x->buffer, lane0(e, x->index)));
    return;
  }
  em_val v = em_to_memory(e, t, wide(e, x->value));
  em_val mask = both(e, s->mask, partial ? em_mask(e, s->width, s->active) : NULL);
  if (is_affine && stride == 1) {
    em_val p = address(e, x->buffer, lane0(e, x->index));
    if (mask) masked_store(e, t, v, p, mask, false);
    else store_at(e, t, v, p);
    return;
  }
  if (s->mask) {      /* in lane order, by the instruction's definition */
    em_val index = wide(e, x->index);
    masked_store(e, t, v, LLVMBuildGEP2(e->b, em_memory_type(e, t, 0), s->pointers[x->buffer], &index, 1, ""), mask, true);
    return;
  }
  em_val index = is_affine ? NULL : value(e, x->index), base = is_affine ? address(e, x->buffer, lane0(e, x->index)) : NULL;
  for (int i = is_affine && stride == 0 ? s->active - 1 : 0; i < s->active; i++) {
    em_val k = em_int(e->i64, (uint64_t)(i * stride));
    em_val p = index ? address(e, x->buffer, lane(e, index, i)) : LLVMBuildGEP2(e->b, em_memory_type(e, t, 0), base, &k, 1, "");
    store_at(e, t, lane(e, v, i), p);
  }
}

/* The body of an if, or a store under a scalar guard; locals changed in it get phis. */
static void conditional(em *e, em_val condition, const lp_stmt *body, const lp_stmt *store) {
  em_kernel *s = e->kernel;
  em_changes c;
  if (!find_changes(e, body, &c)) return;
  if (store) c.stored |= bit(store->buffer);
  LLVMBasicBlockRef inside = block(e), after = block(e);
  em_val pre = LLVMBuildCondBr(e->b, condition, inside, after);
  LLVMPositionBuilderAtEnd(e->b, inside);
  size_t n = 0;
  for (int l = 0; l < s->k->n_locals; l++) n += carried(e, &c, l) ? (size_t)s->k->locals[l].count : 0;
  em_val *before = take(e, n + 1, sizeof *before);
  if (!before) return;
  size_t i = 0;
  for (int l = 0; l < s->k->n_locals; l++)
    for (int j = 0; carried(e, &c, l) && j < s->k->locals[l].count; j++) before[i++] = s->locals[l].values[j];
  push(e, (em_scope){.locals = c.locals, .stored = c.stored, .guarded = true, .pre = pre});
  if (store) store_value(e, store);
  statements(e, body);
  pop(e);
  LLVMBasicBlockRef from[2] = {LLVMGetInstructionParent(pre), LLVMGetInsertBlock(e->b)};
  LLVMBuildBr(e->b, after);
  LLVMPositionBuilderAtEnd(e->b, after);
  i = 0;
  for (int l = 0; l < s->k->n_locals; l++) {
    for (int j = 0; carried(e, &c, l) && j < s->k->locals[l].count; j++, i++) {
      em_val now = s->locals[l].values[j];
      if (now == before[i]) continue;
      s->locals[l].values[j] = LLVMBuildPhi(e->b, LLVMTypeOf(now), "");
      LLVMAddIncoming(s->locals[l].values[j], (em_val[]){before[i], now}, from, 2);
    }
  }
  touch(e, &c);
}

static void store(em *e, const lp_stmt *x) {
  em_kernel *s = e->kernel;
  if (!x->guard) {
    store_value(e, x);
  } else if (!is_vector(e, x->guard)) {
    conditional(e, value(e, x->guard), NULL, x);
  } else {
    em_val outer = s->mask;
    em_val mask = both(e, outer, value(e, x->guard));
    push(e, (em_scope){.guarded = true});
    s->mask = mask;
    store_value(e, x);
    s->mask = outer;
    pop(e);
  }
  touch_buffer(e, x->buffer);
}

static void statement(em *e, const lp_stmt *x) {
  em_kernel *s = e->kernel;
  int64_t index = 0;
  em_local *l = x->kind == LS_LOCAL || x->kind == LS_SET || x->kind == LS_REDUCE ? &s->locals[x->local] : NULL;
  if (l && x->index) {
    if (at(e, x->index)->kind != LX_CONST) { bad(e, "the index of a local is not constant", x->index); return; }
    index = at(e, x->index)->imm;
  }
  if (l && x->kind != LS_LOCAL && (!l->live || index < 0 || index >= s->k->locals[x->local].count)) {
    bad(e, "a local is set outside of its scope", x->value);
    return;
  }
  switch (x->kind) {
  case LS_FOR: for_loop(e, x); break;
  case LS_LOCAL: {
    em_val v = x->value ? wide(e, x->value) : LLVMConstNull(em_type(e, s->k->locals[x->local].dtype, s->width));
    for (int i = 0; i < s->k->locals[x->local].count; i++) l->values[i] = v;
    if (l->width != s->width || !l->live) s->generation++;
    l->width = s->width, l->live = true;
    touch_local(e, x->local);
    break;
  }
  case LS_SET: {
    em_val v = l->width ? wide(e, x->value) : value(e, x->value);
    if (!l->width && em_width(v)) { bad(e, "a vector is set into a scalar local", x->value); return; }
    l->values[index] = v;
    touch_local(e, x->local);
    break;
  }
  case LS_REDUCE: {
    tt_dtype t = s->k->locals[x->local].dtype;
    em_val v = l->width ? wide(e, x->value) : value(e, x->value);
    if (!l->width && em_width(v)) { bad(e, "a vector is reduced into a scalar local", x->value); return; }
    if (l->width && s->active < s->width) v = LLVMBuildSelect(e->b, em_mask(e, s->width, s->active), v, em_identity(e, (ir_op)x->op, t, s->width), "");
    l->values[index] = em_combine(e, (ir_op)x->op, t, l->values[index], v);
    touch_local(e, x->local);
    break;
  }
  case LS_STORE: store(e, x); break;
  case LS_IF: {
    if (is_vector(e, x->guard)) { bad(e, "an if on a vector", x->guard); return; }
    conditional(e, value(e, x->guard), x->body, NULL);
    break;
  }
  }
}

static void statements(em *e, const lp_stmt *s) {
  for (; s && !e->kernel->failed; s = s->next) statement(e, s);
}

/* ---- the function */

static void add_attribute(em *e, const char *key, const char *text) {
  LLVMAttributeRef a = LLVMCreateStringAttribute(e->context, key, (unsigned)strlen(key), text, (unsigned)strlen(text));
  LLVMAddAttributeAtIndex(e->function, LLVMAttributeFunctionIndex, a);
}

static void attributes(em *e) {
  static const char *flags[] = {"nounwind", "nofree"};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
    unsigned kind = LLVMGetEnumAttributeKindForName(flags[i], strlen(flags[i]));
    LLVMAddAttributeAtIndex(e->function, LLVMAttributeFunctionIndex, LLVMCreateEnumAttribute(e->context, kind, 0));
  }
  add_attribute(e, "target-cpu", e->cpu->name);
  if (e->cpu->features && *e->cpu->features) add_attribute(e, "target-features", e->cpu->features);
  add_attribute(e, "no-builtins", "");
  add_attribute(e, "prefer-vector-width", e->cpu->vector_bytes >= 64 ? "512" : e->cpu->vector_bytes >= 32 ? "256" : "128");
}

static void body(em *e, const lp_kernel *k) {
  em_kernel *s = e->kernel;
  em_val args = LLVMGetParam(e->function, 0), begin = LLVMGetParam(e->function, 1), end = LLVMGetParam(e->function, 2);
  LLVMBasicBlockRef entry = block(e), work = block(e), done = block(e);
  LLVMPositionBuilderAtEnd(e->b, done);
  LLVMBuildRetVoid(e->b);
  LLVMPositionBuilderAtEnd(e->b, entry);
  LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, begin, end, ""), work, done);
  LLVMPositionBuilderAtEnd(e->b, work);
  int64_t offset = 0;
  for (int i = 0; i < k->n_buffers; i++) {
    const lp_buffer *f = &k->buffers[i];
    em_val at_index = em_int(e->i64, (uint64_t)(f->scratch ? offset : i));
    if (f->scratch) {
      s->pointers[i] = LLVMBuildGEP2(e->b, e->i8, LLVMGetParam(e->function, 3), &at_index, 1, f->name ? f->name : "");
      offset += (f->count * (int64_t)tt_dtype_size(f->dtype) + 63) & ~(int64_t)63;
    } else {
      em_val p = LLVMBuildGEP2(e->b, e->ptr, args, &at_index, 1, "");
      s->pointers[i] = LLVMBuildLoad2(e->b, e->ptr, p, f->name ? f->name : "");
      LLVMSetMetadata(s->pointers[i], LLVMGetMDKindIDInContext(e->context, "invariant.load", 14),
                      LLVMMetadataAsValue(e->context, LLVMMDNodeInContext2(e->context, NULL, 0)));
    }
  }
  em_changes c;
  if (!find_changes(e, k->body, &c)) return;
  s->var_multiple[0] = 1;
  if (k->tasks == 1) {
    s->vars[0] = em_int(e->i64, 0);
    statements(e, k->body);
  } else {
    loop(e, 0, begin, end, 1, k->body, &c);
  }
  if (!s->failed) LLVMBuildBr(e->b, done);
}

bool em_function(em *e, const lp_kernel *k, const char *symbol) {
  LLVMTypeRef params[5] = {e->ptr, e->i64, e->i64, e->ptr, e->ptr};
  em_kernel *s = calloc(1, sizeof *s);
  if (!s) return tt_fail(e->err, TT_NO_MEMORY, "error: no memory to compile %s\n  at codegen/llvm/emit.c\n  fix: free some", k->name), false;
  e->kernel = s;
  s->k = k;
  s->vector_var = -1;
  s->generation = 1;
  e->function = LLVMAddFunction(e->module, symbol, LLVMFunctionType(LLVMVoidTypeInContext(e->context), params, 5, false));
  e->table = LLVMGetParam(e->function, 4);
  e->lanes[0] = e->lanes[1] = NULL;
  attributes(e);
  static const char *names[] = {"args", "begin", "end", "scratch", "context"};
  for (unsigned i = 0; i < 5; i++) LLVMSetValueName2(LLVMGetParam(e->function, i), names[i], strlen(names[i]));
  size_t n = k->n_exprs;
  s->pointers = take(e, (size_t)k->n_buffers + 1, sizeof *s->pointers);
  s->needs = take(e, n, sizeof *s->needs);
  s->vector_of = take(e, n, sizeof *s->vector_of);
  for (int i = 0; i < N_CACHES; i++) s->cache[i] = take(e, n, sizeof **s->cache);
  s->vars = take(e, (size_t)k->n_vars + 1, sizeof *s->vars);
  s->var_multiple = take(e, (size_t)k->n_vars + 1, sizeof *s->var_multiple);
  s->locals = take(e, (size_t)k->n_locals + 1, sizeof *s->locals);
  for (int l = 0; l < k->n_locals && !s->failed; l++) s->locals[l].values = take(e, (size_t)k->locals[l].count + 1, sizeof(em_val));
  if (!s->failed) {
    find_needs(e);
    body(e, k);
  }
  bool ok = !s->failed && (!e->err || e->err->status == TT_OK);
  for (lp_block *b = s->blocks, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  free(s);
  e->kernel = NULL;
  return ok;
}
