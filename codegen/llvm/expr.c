/* expr.c: expressions of the loop language become values. Each is emitted once, in the outermost scope where all that it depends on is
 * known, and kept for as long as that scope is open and nothing that it depends on has changed.
 *
 * What an expression depends on is a bit set each of loop variables, locals and written buffers (by number modulo 64: a collision only
 * keeps it further inside). Loads do not leave ifs and guards, because the guard may be what makes them legal; loops are
 * entered only when they run at least once, so loads may leave those.
 *
 * In a vector loop an expression is a vector if it depends on the loop's variable or on locals declared inside, else a scalar. An index
 * that is c * lane + rest is computed for lane 0 alone: c = 1 makes a vector load, c = 0 a scalar one, else a gather. Guards are
 * masks: where the CPU has no masked load, lanes that are off load element 0; everything else is total. */
#include <stdlib.h>
#include <string.h>

#include "emit.h"

void *em_take(em *e, size_t n, size_t size) {
  lp_block *b = calloc(1, sizeof *b + 8 + n * size);
  if (!b) {
    tt_fail(e->err, TT_NO_MEMORY, "error: no memory to compile %s\n  at codegen/llvm/expr.c\n  fix: free some", e->kernel->k->name);
    e->kernel->failed = true;
    return NULL;
  }
  b->next = e->kernel->blocks;
  e->kernel->blocks = b;
  return (void *)(((uintptr_t)(b + 1) + 7) & ~(uintptr_t)7);
}

em_val em_bad(em *e, const char *what, lp_ref r) {
  tt_fail(e->err, TT_INTERNAL, "error: kernel %s: %s (expression %u)\n  at codegen/llvm/expr.c\n  fix: report this with the output of dump --stage=loops",
          e->kernel->k->name, what, r);
  e->kernel->failed = true;
  return em_int(e->i64, 0);
}

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

LLVMBasicBlockRef em_block(em *e) { return LLVMAppendBasicBlockInContext(e->context, e->function, ""); }

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
  em_branch r = {LLVMGetInsertBlock(e->b), em_block(e), em_block(e), NULL};
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
  em_repeat r = {LLVMGetInsertBlock(e->b), em_block(e), em_block(e), NULL, NULL};
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

void em_find_needs(em *e) {
  em_kernel *s = e->kernel;
  for (lp_ref r = 1; r < s->k->n_exprs; r++) {
    const lp_expr *x = em_expr(e, r);
    em_needs n = {0};
    for (int i = 0; i < 3; i++) {
      if (!x->a[i]) continue;
      em_needs a = s->needs[x->a[i]];
      n.vars |= a.vars, n.locals |= a.locals, n.loaded |= a.loaded, n.loads |= a.loads;
    }
    if (x->kind == LX_VAR) n.vars |= em_bit(x->imm);
    if (x->kind == LX_LOCAL) n.locals |= em_bit(x->imm);
    if (x->kind == LX_LOAD) {
      n.loads = true;
      if (s->k->buffers[x->imm].written) n.loaded |= em_bit(x->imm);
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

bool em_is_vector(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  if (!r || !s->width) return false;
  if (s->vector_of[r] >> 1 == s->generation) return s->vector_of[r] & 1;
  const lp_expr *x = em_expr(e, r);
  bool v = x->kind == LX_VAR ? x->imm == s->vector_var : x->kind == LX_LOCAL ? s->locals[x->imm].width > 0 : false;
  if (x->kind != LX_LOCAL)
    for (int i = 0; i < 3; i++) v |= em_is_vector(e, x->a[i]);
  s->vector_of[r] = s->generation << 1 | v;
  return v;
}

bool em_affine(em *e, lp_ref r, int64_t *coefficient) {
  em_kernel *s = e->kernel;
  const lp_expr *x = em_expr(e, r);
  int64_t a, b;
  *coefficient = 0;
  if (!em_is_vector(e, r)) return true;
  if (x->kind == LX_VAR) return *coefficient = s->vector_step, true;
  if (x->kind != LX_OP || x->dtype != TT_I64) return false;
  if (x->op == IR_mul) {
    bool left = em_expr(e, x->a[0])->kind == LX_CONST, right = em_expr(e, x->a[1])->kind == LX_CONST;
    if ((!left && !right) || !em_affine(e, x->a[left], &a)) return false;
    return *coefficient = a * em_expr(e, x->a[!left])->imm, true;
  }
  if ((x->op != IR_add && x->op != IR_sub) || !em_affine(e, x->a[0], &a) || !em_affine(e, x->a[1], &b)) return false;
  return *coefficient = x->op == IR_add ? a + b : a - b, true;
}

int64_t em_multiple(em *e, lp_ref r) {
  const lp_expr *x = em_expr(e, r);
  if (x->kind == LX_CONST) return x->imm & 63 ? x->imm & -x->imm : 64;
  if (x->kind == LX_VAR) return e->kernel->var_multiple[x->imm];
  if (x->kind != LX_OP || x->dtype != TT_I64 || (x->op != IR_add && x->op != IR_sub && x->op != IR_mul)) return 1;
  int64_t a = em_multiple(e, x->a[0]), b = em_multiple(e, x->a[1]), r2 = x->op == IR_mul ? a * b : a < b ? a : b;
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
  if (which == EM_SPLAT && em_width(c->value) != s->width) return NULL;
  return c->value;
}

static em_val keep(em *e, int which, lp_ref r, int level, em_val v) {
  em_kernel *s = e->kernel;
  s->cache[which][r] = (em_cached){v, s->scopes[level].serial, s->clock, level};
  return v;
}

void em_keep(em *e, lp_ref r, int level, em_val v) { keep(e, EM_NATURAL, r, level, v); }

void em_touch_local(em *e, int64_t l) { e->kernel->local_clock[l & 63] = ++e->kernel->clock; }
void em_touch_buffer(em *e, int64_t b) { e->kernel->buffer_clock[b & 63] = ++e->kernel->clock; }

void em_push(em *e, em_scope scope) {
  em_kernel *s = e->kernel;
  if (s->depth + 1 >= EM_MAX_DEPTH) { em_bad(e, "loops are nested too deeply", 0); return; }
  scope.serial = ++s->serial;
  s->scopes[++s->depth] = scope;
}
void em_pop(em *e) { e->kernel->depth--; }

/* ---- expressions */

em_val em_both(em *e, em_val a, em_val b) { return !a ? b : !b ? a : LLVMBuildAnd(e->b, a, b, ""); }

static em_val any_lane(em *e, em_val mask) {
  em_val bits = LLVMBuildBitCast(e->b, mask, LLVMIntTypeInContext(e->context, (unsigned)em_width(mask)), "");
  return LLVMBuildICmp(e->b, LLVMIntNE, bits, em_int(LLVMTypeOf(bits), 0), "");
}

static em_val constant(em *e, const lp_expr *x) {
  switch (x->dtype) {
  case TT_F64: return LLVMConstBitCast(em_int(e->i64, (uint64_t)x->imm), e->f64);
  case TT_F32: case TT_F16: case TT_BF16: return LLVMConstBitCast(em_int(e->i32, (uint32_t)x->imm), e->f32);
  default: return em_int(em_type(e, x->dtype, 0), (uint64_t)x->imm);
  }
}

/* Variable * constant in the innermost loop, or NULL where that is no use: small powers of two are part of an address. */
static em_val carried(em *e, const lp_expr *x) {
  em_loop *l = e->kernel->loop;
  if (!l || x->kind != LX_OP || x->op != IR_mul || x->dtype != TT_I64) return NULL;
  const lp_expr *v = em_expr(e, x->a[0]), *c = em_expr(e, x->a[1]);
  if (v->kind != LX_VAR || v->imm != l->var || c->kind != LX_CONST || c->imm == 1 || c->imm == 2) return NULL;
  for (int i = 0; i < l->n; i++)
    if (l->carried[i].factor == c->imm) return l->carried[i].phi;
  if (l->n == (int)(sizeof l->carried / sizeof *l->carried)) return NULL;
  LLVMBuilderRef b = LLVMCreateBuilderInContext(e->context);
  LLVMPositionBuilderBefore(b, l->counter);
  em_val phi = LLVMBuildPhi(b, e->i64, "");
  LLVMDisposeBuilder(b);
  l->carried[l->n].factor = c->imm;
  return l->carried[l->n++].phi = phi;
}

void em_close_loop(em *e, em_loop *l, const LLVMBasicBlockRef from[2]) {
  for (int i = 0; i < l->n; i++) {
    em_val phi = l->carried[i].phi, factor = em_int(e->i64, (uint64_t)l->carried[i].factor), next;
    LLVMBuilderRef b = LLVMCreateBuilderInContext(e->context);
    LLVMPositionBuilderBefore(b, l->pre);
    em_val start = LLVMBuildMul(b, l->begin, factor, "");
    LLVMDisposeBuilder(b);
    next = LLVMBuildAdd(e->b, phi, em_int(e->i64, (uint64_t)(l->step * l->carried[i].factor)), "");
    LLVMAddIncoming(phi, (em_val[]){start, next}, (LLVMBasicBlockRef *)from, 2);
  }
}

em_val em_lane0(em *e, lp_ref r) {
  if (!em_is_vector(e, r)) return em_value(e, r);
  const lp_expr *x = em_expr(e, r);
  if (x->kind == LX_VAR) return e->kernel->vars[x->imm];
  em_val v = cached(e, EM_LANE0, r);
  if (v) return v;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  if (!(v = carried(e, x))) {
    em_val a = em_lane0(e, x->a[0]), b = em_lane0(e, x->a[1]);
    v = em_op(e, (ir_op)x->op, TT_I64, TT_I64, a, b, NULL);
  }
  go_back(e, p);
  return keep(e, EM_LANE0, r, level, v);
}

static bool is_index_op(const lp_expr *x) {
  return x->kind == LX_OP && x->dtype == TT_I64 && (x->op == IR_add || x->op == IR_sub || x->op == IR_mul || x->op == IR_div || x->op == IR_fmod);
}

/* Vector index arithmetic in i32, where all parts are known to fit. */
static bool fits_i32(em *e, lp_ref r) {
  const lp_expr *x = em_expr(e, r);
  const lp_fact *f = lp_fact_of(e->kernel->k, r);
  if (x->dtype != TT_I64 || !lp_known(f) || f->lo < 0 || f->hi > INT32_MAX - 4096) return false;      /* lanes past the end count on */
  return !is_index_op(x) || (fits_i32(e, x->a[0]) && fits_i32(e, x->a[1]));
}

static em_val narrow(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  if (!em_is_vector(e, r)) return em_splat(e, LLVMBuildTrunc(e->b, em_value(e, r), e->i32, ""), s->width);
  const lp_expr *x = em_expr(e, r);
  em_val v = cached(e, EM_NARROW, r);
  if (v) return v;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  if (x->kind == LX_VAR) {
    em_val first = LLVMBuildTrunc(e->b, s->vars[x->imm], e->i32, "");
    v = LLVMBuildAdd(e->b, em_splat(e, first, s->width), em_lanes(e->i32, s->width, 0, s->vector_step), "");
  } else if (is_index_op(x)) {
    v = em_op(e, (ir_op)x->op, TT_U32, TT_U32, narrow(e, x->a[0]), narrow(e, x->a[1]), NULL);
  } else {
    v = LLVMBuildTrunc(e->b, em_value(e, r), em_widen(e->i32, s->width), "");
  }
  go_back(e, p);
  return keep(e, EM_NARROW, r, level, v);
}

em_val em_address(em *e, int64_t buffer, em_val index) {
  LLVMTypeRef t = em_memory_type(e, e->kernel->k->buffers[buffer].dtype, 0);
  return LLVMBuildGEP2(e->b, t, e->kernel->pointers[buffer], &index, 1, "");
}

/* The terms of a sum: those that stay the same in the innermost loop, the others, and the constant. false: too many. */
typedef struct { lp_ref same[8], other[8]; int n_same, n_other; int64_t constant; } terms;
static bool split_terms(em *e, lp_ref r, const em_loop *l, terms *t) {
  const lp_expr *x = em_expr(e, r);
  if (x->kind == LX_OP && x->op == IR_add) return split_terms(e, x->a[0], l, t) && split_terms(e, x->a[1], l, t);
  if (x->kind == LX_CONST) return t->constant += x->imm, true;
  bool same = level_of(e, r) < l->depth;
  if ((same ? t->n_same : t->n_other) == 8) return false;
  if (same) t->same[t->n_same++] = r;
  else t->other[t->n_other++] = r;
  return true;
}

static em_val sum_of(em *e, const lp_ref *r, int n) {
  em_val v = em_lane0(e, r[0]);
  for (int i = 1; i < n; i++) v = em_op(e, IR_add, TT_I64, TT_I64, v, em_lane0(e, r[i]), NULL);
  return v;
}

/* A constant is added to the pointer, not to the index: as part of an address it costs nothing, and places that differ in it alone share all the rest. */
static em_val plain_place(em *e, int64_t buffer, lp_ref index) {
  const lp_expr *x = em_expr(e, index);
  int64_t c;
  if (x->kind != LX_OP || x->op != IR_add || !lp_is_int(e->kernel->k, x->a[1], &c)) return em_address(e, buffer, em_lane0(e, index));
  em_val p = em_address(e, buffer, em_lane0(e, x->a[0])), constant = em_int(e->i64, (uint64_t)c);
  return LLVMBuildGEP2(e->b, em_memory_type(e, e->kernel->k->buffers[buffer].dtype, 0), p, &constant, 1, "");
}

/* In an innermost loop: what stays the same is added to the buffer before it, so that a load's own address is base + index + constant. */
em_val em_place(em *e, int64_t buffer, lp_ref index) {
  em_kernel *s = e->kernel;
  em_loop *l = s->loop;
  terms t = {.n_same = 0};
  if (!l || !split_terms(e, index, l, &t) || !t.n_other) return plain_place(e, buffer, index);
  LLVMTypeRef type = em_memory_type(e, s->k->buffers[buffer].dtype, 0);
  em_val p = t.n_same ? NULL : s->pointers[buffer];
  for (int i = 0; i < l->n_bases && !p; i++)
    if (l->bases[i].buffer == buffer && l->bases[i].n_terms == t.n_same && !memcmp(l->bases[i].terms, t.same, (size_t)t.n_same * sizeof *t.same)) p = l->bases[i].pointer;
  if (!p && l->n_bases == (int)(sizeof l->bases / sizeof *l->bases)) return plain_place(e, buffer, index);
  if (!p) {
    em_point here = go_to(e, l->depth - 1);
    p = em_address(e, buffer, sum_of(e, t.same, t.n_same));
    go_back(e, here);
    l->bases[l->n_bases].buffer = buffer, l->bases[l->n_bases].n_terms = t.n_same, l->bases[l->n_bases].pointer = p;
    memcpy(l->bases[l->n_bases++].terms, t.same, sizeof t.same);
  }
  em_val offset = sum_of(e, t.other, t.n_other), constant = em_int(e->i64, (uint64_t)t.constant);
  p = LLVMBuildGEP2(e->b, type, p, &offset, 1, "");
  return t.constant ? LLVMBuildGEP2(e->b, type, p, &constant, 1, "") : p;
}

/* Not "invariant", though the kernel writes no such buffer: a result may lie over an argument (memory.c), and then the order of loads and
 * stores at one index is what counts. */
static em_val load_at(em *e, int64_t buffer, em_val pointer, int width) {
  const lp_buffer *f = &e->kernel->k->buffers[buffer];
  em_val v = LLVMBuildLoad2(e->b, em_memory_type(e, f->dtype, width), pointer, "");
  LLVMSetAlignment(v, (unsigned)tt_dtype_size(f->dtype));
  return v;
}

static bool has_masks(em *e, tt_dtype t) { return e->cpu->masks && (tt_dtype_size(t) >= 4 || e->cpu->avx512); }

static em_val masked_load(em *e, tt_dtype t, em_val pointer, em_val mask) {
  LLVMTypeRef types[2] = {em_memory_type(e, t, em_width(mask)), e->ptr};
  unsigned id = LLVMLookupIntrinsicID("llvm.masked.load", 16);
  em_val args[4] = {pointer, em_int(e->i32, tt_dtype_size(t)), mask, LLVMConstNull(types[0])};
  return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->context, id, types, 2), LLVMGetIntrinsicDeclaration(e->module, id, types, 2), args, 4, "");
}

em_val em_lane(em *e, em_val v, int i) { return em_width(v) ? LLVMBuildExtractElement(e->b, v, em_int(e->i64, (unsigned)i), "") : v; }

/* Element by element. first: lane 0's index when the lanes are `stride` apart, else index has them all. */
static em_val gather(em *e, int64_t buffer, em_val first, int64_t stride, em_val index, em_val mask, int active) {
  em_kernel *s = e->kernel;
  tt_dtype t = s->k->buffers[buffer].dtype;
  em_val v = LLVMConstNull(em_memory_type(e, t, s->width)), base = first ? em_address(e, buffer, first) : NULL;
  if (mask && !index) {
    em_val steps = em_lanes(e->i64, s->width, 0, stride);
    index = LLVMBuildAdd(e->b, em_splat(e, first, s->width), steps, "");
  }
  if (mask) index = LLVMBuildSelect(e->b, mask, index, em_int(LLVMTypeOf(index), 0), "");
  for (int i = 0; i < active; i++) {
    em_val p;
    if (index) {
      em_val k = em_lane(e, index, i);
      p = em_address(e, buffer, LLVMTypeOf(k) == e->i32 ? LLVMBuildZExt(e->b, k, e->i64, "") : k);
    } else {
      em_val k = em_int(e->i64, (uint64_t)(i * stride));
      p = LLVMBuildGEP2(e->b, em_memory_type(e, t, 0), base, &k, 1, "");
    }
    v = LLVMBuildInsertElement(e->b, v, load_at(e, buffer, p, 0), em_int(e->i64, (unsigned)i), "");
  }
  return v;
}

static em_val load(em *e, lp_ref r, int level) {
  em_kernel *s = e->kernel;
  const lp_expr *x = em_expr(e, r);
  const lp_buffer *f = &s->k->buffers[x->imm];
  tt_dtype t = f->dtype;
  bool vector = em_is_vector(e, r), own = x->a[1] != 0;
  int width = vector ? s->width : 0;
  em_val otherwise = !own ? NULL : x->a[2] ? (vector ? em_wide(e, x->a[2]) : em_value(e, x->a[2])) : LLVMConstNull(em_type(e, t, width));
  if (f->count == 0) return own ? otherwise : LLVMConstNull(em_type(e, t, width));
  int64_t apart = 0;
  if (!own && !s->guard && !s->mask && em_affine(e, x->a[0], &apart) && (!width || apart == 0 || (apart == 1 && s->active == s->width))) {
    bool one = !width || apart == 0;
    em_val plain = em_from_memory(e, t, load_at(e, x->imm, em_place(e, x->imm, x->a[0]), one ? 0 : width));
    return one ? em_splat(e, plain, width) : plain;
  }
  em_val guard = s->guard, mask = s->mask, outer_guard = s->guard, outer_mask = s->mask;
  if (own) {
    em_val g = em_value(e, x->a[1]);
    if (em_width(g)) mask = em_both(e, mask, g);
    else guard = em_both(e, guard, g);
  }
  if (own && s->needs[x->a[0]].loads) em_push(e, (em_scope){.guarded = true});      /* the index may hold loads that the guard protects */
  bool pushed = own && s->needs[x->a[0]].loads;
  s->guard = guard, s->mask = mask;
  int64_t stride = 0;
  bool is_affine = em_affine(e, x->a[0], &stride);
  em_val first = is_affine ? em_lane0(e, x->a[0]) : NULL;
  em_val index = is_affine ? NULL : fits_i32(e, x->a[0]) ? narrow(e, x->a[0]) : em_value(e, x->a[0]);
  s->guard = outer_guard, s->mask = outer_mask;
  if (pushed) em_pop(e);

  em_val v;
  if (!width || (is_affine && stride == 0)) {      /* one element for all lanes */
    em_val c = em_both(e, guard, mask ? any_lane(e, mask) : NULL);
    if (c) first = LLVMBuildSelect(e->b, c, first, em_int(e->i64, 0), "");
    v = em_splat(e, em_from_memory(e, t, load_at(e, x->imm, em_address(e, x->imm, first), 0)), width);
    if (own && width && mask) v = LLVMBuildSelect(e->b, guard ? em_both(e, mask, em_splat(e, guard, width)) : mask, v, otherwise, "");
    else if (own) v = LLVMBuildSelect(e->b, guard, v, otherwise, "");
    return v;
  }
  bool partial = s->active < s->width;
  if (is_affine && stride == 1 && !mask && !partial && (!guard || f->count >= s->width)) {
    if (guard) first = LLVMBuildSelect(e->b, guard, first, em_int(e->i64, 0), "");
    v = em_from_memory(e, t, load_at(e, x->imm, em_address(e, x->imm, first), width));
    return own ? LLVMBuildSelect(e->b, guard, v, otherwise, "") : v;
  }
  em_val lanes = em_both(e, mask, guard ? em_splat(e, guard, width) : NULL);      /* dynamic conditions */
  if (is_affine && stride != 1 && !lanes && !partial && (v = em_load_column(e, r, first, stride, level))) return v;
  if (is_affine && stride == 1 && (!lanes || has_masks(e, t)))
    v = masked_load(e, t, em_address(e, x->imm, first), em_both(e, lanes, partial ? em_mask(e, width, s->active) : NULL));
  else
    v = gather(e, x->imm, first, stride, index, lanes, s->active);
  v = em_from_memory(e, t, v);
  return own ? LLVMBuildSelect(e->b, lanes, v, otherwise, "") : v;
}

static em_val random_bits(em *e, const lp_expr *x) {
  em_kernel *s = e->kernel;
  em_val seed = em_lane(e, em_value(e, x->a[0]), 0), step = em_lane(e, em_value(e, x->a[1]), 0);      /* the same in all lanes, also where a vector loop's local has them */
  int64_t stride = 0;
  int n = em_is_vector(e, x->a[2]) ? s->width : 0;
  bool block = n && n % 32 == 0 && em_affine(e, x->a[2], &stride) && stride == 1 && em_multiple(e, x->a[2]) % 32 == 0;
  em_point here = go_to(e, level_of(e, x->a[0]));
  em_keys keys = em_philox_keys(e, seed, block ? n / 8 : n);
  go_back(e, here);
  if (block) return em_philox_block(e, &keys, step, em_lane0(e, x->a[2]), (uint32_t)x->imm, n / 32);
  return em_philox(e, &keys, step, em_value(e, x->a[2]), (uint32_t)x->imm);
}

/* a / d or a % d of 0 <= a <= most < 2^31: a product with 2^k / d rounded up and a shift. The product is too large by a * (factor * d - 2^k) / (d * 2^k), which
 * is under 1 / d, so its whole part is exact; and it is under 2^64. LLVM knows no bound of a: its form has a product of 128 bits, and takes it long to find. */
static em_val divide_small(em *e, em_val a, int64_t most, int64_t d, bool remainder) {
  uint64_t k = 0, n = (uint64_t)most, by = (uint64_t)d, factor;
  while (factor = ((1ull << k) + by - 1) / by, n * (factor * by - (1ull << k)) >= 1ull << k) k++;
  em_val quotient = LLVMBuildLShr(e->b, LLVMBuildMul(e->b, a, em_int(e->i64, factor), ""), em_int(e->i64, k), "");
  return remainder ? LLVMBuildSub(e->b, a, LLVMBuildMul(e->b, quotient, em_int(e->i64, by), ""), "") : quotient;
}

static em_val operation(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  const lp_expr *x = em_expr(e, r);
  tt_dtype in = (tt_dtype)em_expr(e, x->a[0])->dtype, out = (tt_dtype)x->dtype;
  bool vector = em_is_vector(e, r), is_division = x->op == IR_div || x->op == IR_fmod;
  bool compares = ir_ops[x->op].gives_bool;
  em_val multiple = vector ? NULL : carried(e, x);
  if (multiple) return multiple;
  if (in == TT_I64 && vector && (compares || x->op == IR_cast) && fits_i32(e, x->a[0]) && (!x->a[1] || fits_i32(e, x->a[1])) &&
      em_is_vector(e, x->a[0]))
    return em_op(e, (ir_op)x->op, TT_I32, out, narrow(e, x->a[0]), x->a[1] ? narrow(e, x->a[1]) : NULL, NULL);
  if (vector && is_index_op(x) && fits_i32(e, r))
    return LLVMBuildZExt(e->b, narrow(e, r), em_widen(e->i64, s->width), "");
  if (in == TT_I64 && is_division && lp_fact_of(s->k, x->a[0])->lo >= 0 && lp_fact_of(s->k, x->a[1])->lo > 0) in = out = TT_U64;
  int64_t most, by;
  if (out == TT_U64 && is_division && !vector && lp_is_int(s->k, x->a[1], &by) && by < INT32_MAX && (most = lp_fact_of(s->k, x->a[0])->hi) <= INT32_MAX && (by & (by - 1)))
    return divide_small(e, em_value(e, x->a[0]), most, by, x->op == IR_fmod);
  em_val v[3] = {0};
  for (int i = 0; i < 3; i++)
    if (x->a[i]) v[i] = vector ? em_wide(e, x->a[i]) : em_value(e, x->a[i]);
  return em_op(e, (ir_op)x->op, in, out, v[0], v[1], v[2]);
}

em_val em_value(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  const lp_expr *x = em_expr(e, r);
  int64_t index = 0;
  if (x->kind == LX_CONST) return constant(e, x);
  if (x->kind == LX_VAR && !em_is_vector(e, r)) {
    if (!s->vars[x->imm]) return em_bad(e, "a loop variable is used outside of its loop", r);
    return s->vars[x->imm];
  }
  if (x->kind == LX_LOCAL) {
    const em_local *l = &s->locals[x->imm];
    if (x->a[0] && (em_expr(e, x->a[0])->kind != LX_CONST)) return em_bad(e, "the index of a local is not constant", r);
    if (x->a[0]) index = em_expr(e, x->a[0])->imm;
    if (!l->live || index < 0 || index >= s->k->locals[x->imm].count) return em_bad(e, "a local is used outside of its scope", r);
    return l->values[index];
  }
  em_val v = cached(e, EM_NATURAL, r);
  if (v) return v;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  switch (x->kind) {
  case LX_VAR:
    v = LLVMBuildAdd(e->b, em_splat(e, s->vars[x->imm], s->width), em_lanes(e->i64, s->width, 0, s->vector_step), "");
    break;
  case LX_OP: v = operation(e, r); break;
  case LX_LOAD: v = load(e, r, level); break;
  case LX_PHILOX: v = random_bits(e, x); break;
  case LX_DOT: {
    bool vector = em_is_vector(e, r);
    em_val a[3];
    for (int i = 0; i < 3; i++) a[i] = vector ? em_wide(e, x->a[i]) : em_value(e, x->a[i]);
    v = em_dot(e, a[0], a[1], a[2]);
    break;
  }
  case LX_FMA: {
    bool vector = em_is_vector(e, r);
    em_val a[3];
    for (int i = 0; i < 3; i++) a[i] = vector ? em_wide(e, x->a[i]) : em_value(e, x->a[i]);
    if (tt_dtype_in((tt_dtype)x->dtype, TT_REAL)) v = em_round_to(e, (tt_dtype)x->dtype, em_fma(e, a[0], a[1], a[2]));
    else v = LLVMBuildAdd(e->b, LLVMBuildMul(e->b, a[0], a[1], ""), a[2], "");
    break;
  }
  default: v = em_bad(e, "unknown kind of expression", r);
  }
  go_back(e, p);
  return keep(e, EM_NATURAL, r, level, v);
}

em_val em_wide(em *e, lp_ref r) {
  em_kernel *s = e->kernel;
  em_val v = em_value(e, r);
  if (!s->width || em_width(v)) return v;
  if (LLVMIsConstant(v) || em_expr(e, r)->kind == LX_LOCAL) return em_splat(e, v, s->width);
  em_val w = cached(e, EM_SPLAT, r);
  if (w) return w;
  int level = level_of(e, r);
  em_point p = go_to(e, level);
  w = em_splat(e, v, s->width);
  go_back(e, p);
  return keep(e, EM_SPLAT, r, level, w);
}

