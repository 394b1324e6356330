/* emit.c: one kernel of the loop language becomes one LLVM function
 *
 *     void NAME(ptr args, i64 begin, i64 end, ptr scratch, ptr context)          rt_kernel
 *
 * in SSA form and explicit vectors, so that no pass needs to run over it: locals are values, loops make phis of those that
 * they change, and an expression is emitted once, in the outermost scope where all that it depends on is known.
 *
 * A scope is an open loop, if or guard. `pre`, the branch into it, marks where code of the scopes around it can still be
 * inserted (expr.c).
 *
 * A vector loop is emitted as full vectors and a remainder, with `width` lanes of which the first `active` count. Locals that it
 * reduces into become vectors of partial results for its duration. */
#include <stdlib.h>
#include <string.h>

#include "emit.h"

typedef struct { uint8_t *flags; uint16_t *ops; uint64_t locals, stored; } em_changes;     /* flags, ops: by local */
enum { CHANGED = 1, DECLARED = 2, REDUCED = 4 };

static void statements(em *e, const lp_stmt *s);

/* ---- statements */

static void scan(const lp_stmt *s, em_changes *c) {
  for (; s; s = s->next) {
    if (s->kind == LS_SET || s->kind == LS_REDUCE || s->kind == LS_LOCAL) {
      c->locals |= em_bit(s->local);
      c->flags[s->local] |= s->kind == LS_LOCAL ? DECLARED : s->kind == LS_SET ? CHANGED : CHANGED | REDUCED;
      if (s->kind == LS_REDUCE) c->ops[s->local] = s->op;
    }
    if (s->kind == LS_STORE) c->stored |= em_bit(s->buffer);
    if (s->kind == LS_TILES) c->stored |= em_bit(s->tiles->c);
    if (s->body) scan(s->body, c);
  }
}

static bool find_changes(em *e, const lp_stmt *body, em_changes *c) {
  size_t n = (size_t)e->kernel->k->n_locals + 1;
  *c = (em_changes){em_take(e, n, 1), em_take(e, n, sizeof(uint16_t)), 0, 0};
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
/* A loop that runs more than once, or code that is one. */
static bool has_loop(const lp_stmt *s) {
  for (; s; s = s->next)
    if ((s->kind == LS_FOR && s->end - s->begin > s->step * (s->lanes > 1 ? s->lanes : 1)) || ((s->kind == LS_FOR || s->kind == LS_IF) && has_loop(s->body))) return true;
  return false;
}

static void loop(em *e, int var, em_val begin, em_val end, int64_t step, const lp_stmt *body, const em_changes *c) {
  em_kernel *s = e->kernel;
  LLVMBasicBlockRef inside = em_block(e), after = em_block(e);
  em_val pre = LLVMBuildBr(e->b, inside);
  LLVMPositionBuilderAtEnd(e->b, inside);
  em_val counter = LLVMBuildPhi(e->b, e->i64, s->k->vars[var] ? s->k->vars[var] : "");
  size_t n = 0;
  for (int l = 0; l < s->k->n_locals; l++) n += carried(e, c, l) ? (size_t)s->k->locals[l].count : 0;
  em_val *phis = em_take(e, n + 1, sizeof *phis), *starts = em_take(e, n + 1, sizeof *starts);
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
  em_loop own = {.var = var, .counter = counter, .begin = begin, .pre = pre, .step = step}, *outer = s->loop;
  s->loop = has_loop(body) ? NULL : &own;
  touch(e, c);
  em_push(e, (em_scope){.vars = em_bit(var), .locals = c->locals, .stored = c->stored, .pre = pre});
  own.depth = s->depth;
  statements(e, body);
  em_pop(e);
  em_val next = LLVMBuildAdd(e->b, counter, em_int(e->i64, (uint64_t)step), "");
  LLVMBasicBlockRef from[2] = {LLVMGetInstructionParent(pre), LLVMGetInsertBlock(e->b)};
  em_close_loop(e, &own, from);
  s->loop = outer;
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
  em_push(e, (em_scope){.vars = em_bit(f->var), .locals = c->locals, .stored = c->stored});
  statements(e, f->body);
  em_pop(e);
  touch(e, c);
  s->vars[f->var] = NULL;
}

/* All lanes into one, always in the same order: halves onto halves. */
static em_val horizontal(em *e, ir_op op, tt_dtype t, em_val v) {
  em_val odd = NULL;
  for (int n = em_width(v); n > 1; n /= 2) {
    if (n & 1) {
      em_val last = em_lane(e, v, n - 1);
      odd = odd ? em_combine(e, op, t, last, odd) : last;
    }
    int low[256], high[256];
    for (int i = 0; i < n / 2; i++) low[i] = i, high[i] = n / 2 + i;
    v = em_combine(e, op, t, em_shuffle(e, v, NULL, low, n / 2), em_shuffle(e, v, NULL, high, n / 2));
  }
  v = em_lane(e, v, 0);
  return odd ? em_combine(e, op, t, v, odd) : v;
}

/* n steps of `width` lanes from begin, `active` of them counting. */
static void vectors(em *e, const lp_stmt *f, int64_t begin, int64_t n, int width, int active, const em_changes *c) {
  em_kernel *s = e->kernel;
  em_val **saved = em_take(e, (size_t)s->k->n_locals + 1, sizeof *saved);
  if (!saved) return;
  for (int l = 0; l < s->k->n_locals; l++) {
    if (!carried(e, c, l) || !(c->flags[l] & REDUCED)) continue;
    int count = s->k->locals[l].count;
    saved[l] = em_take(e, (size_t)count, sizeof **saved);
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
  if (f->lanes > 256) { em_bad(e, "more than 256 lanes", 0); return; }
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

/* Past the caches, where whole lines (of 64 bytes) are stored, or parts of one after another, and stand aligned. */
static bool store_streamed(em *e, const lp_stmt *x, em_val v, em_val pointer) {
  em_kernel *s = e->kernel;
  int64_t bytes = s->width * (int64_t)tt_dtype_size(s->k->buffers[x->buffer].dtype), aligned = em_multiple(e, x->index) * (int64_t)tt_dtype_size(s->k->buffers[x->buffer].dtype);
  if (!x->stream || (x->stream == LP_CHECK && !s->checked) || bytes % 64 || aligned < 64) return false;
  em_val store = LLVMBuildStore(e->b, v, pointer), one = em_int(e->i32, 1);
  LLVMSetAlignment(store, 64);
  LLVMMetadataRef node = LLVMValueAsMetadata(one);
  LLVMSetMetadata(store, LLVMGetMDKindIDInContext(e->context, "nontemporal", 11), LLVMMetadataAsValue(e->context, LLVMMDNodeInContext2(e->context, &node, 1)));
  s->streamed = true;
  return true;
}

static void store_value(em *e, const lp_stmt *x) {
  em_kernel *s = e->kernel;
  const lp_buffer *f = &s->k->buffers[x->buffer];
  tt_dtype t = f->dtype;
  int64_t stride = 0;
  bool is_affine = em_affine(e, x->index, &stride), partial = s->active < s->width;
  bool vector = s->width && (em_is_vector(e, x->index) || em_is_vector(e, x->value) || s->mask);
  if (f->count == 0) return;
  if (!vector) {
    store_at(e, t, em_to_memory(e, t, em_value(e, x->value)), em_place(e, x->buffer, x->index));
    return;
  }
  em_val v = em_to_memory(e, t, em_wide(e, x->value));
  em_val mask = em_both(e, s->mask, partial ? em_mask(e, s->width, s->active) : NULL);
  if (is_affine && stride == 1) {
    em_val p = em_place(e, x->buffer, x->index);
    if (mask) masked_store(e, t, v, p, mask, false);
    else if (!store_streamed(e, x, v, p)) store_at(e, t, v, p);
    return;
  }
  if (s->mask) {      /* in lane order, by the instruction's definition */
    em_val index = em_wide(e, x->index);
    masked_store(e, t, v, LLVMBuildGEP2(e->b, em_memory_type(e, t, 0), s->pointers[x->buffer], &index, 1, ""), mask, true);
    return;
  }
  em_val index = is_affine ? NULL : em_value(e, x->index), base = is_affine ? em_place(e, x->buffer, x->index) : NULL;
  for (int i = is_affine && stride == 0 ? s->active - 1 : 0; i < s->active; i++) {
    em_val k = em_int(e->i64, (uint64_t)(i * stride));
    em_val p = index ? em_address(e, x->buffer, em_lane(e, index, i)) : LLVMBuildGEP2(e->b, em_memory_type(e, t, 0), base, &k, 1, "");
    store_at(e, t, em_lane(e, v, i), p);
  }
}

/* The body of an if, or a store under a scalar guard; locals changed in it get phis. */
static void conditional(em *e, em_val condition, const lp_stmt *body, const lp_stmt *store) {
  em_kernel *s = e->kernel;
  em_changes c;
  if (!find_changes(e, body, &c)) return;
  if (store) c.stored |= em_bit(store->buffer);
  LLVMBasicBlockRef inside = em_block(e), after = em_block(e);
  em_val pre = LLVMBuildCondBr(e->b, condition, inside, after);
  LLVMPositionBuilderAtEnd(e->b, inside);
  size_t n = 0;
  for (int l = 0; l < s->k->n_locals; l++) n += carried(e, &c, l) ? (size_t)s->k->locals[l].count : 0;
  em_val *before = em_take(e, n + 1, sizeof *before);
  if (!before) return;
  size_t i = 0;
  for (int l = 0; l < s->k->n_locals; l++)
    for (int j = 0; carried(e, &c, l) && j < s->k->locals[l].count; j++) before[i++] = s->locals[l].values[j];
  em_push(e, (em_scope){.locals = c.locals, .stored = c.stored, .guarded = true, .pre = pre});
  if (store) store_value(e, store);
  statements(e, body);
  em_pop(e);
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
  } else if (!em_is_vector(e, x->guard)) {
    conditional(e, em_value(e, x->guard), NULL, x);
  } else {
    em_val outer = s->mask;
    em_val mask = em_both(e, outer, em_value(e, x->guard));
    em_push(e, (em_scope){.guarded = true});
    s->mask = mask;
    store_value(e, x);
    s->mask = outer;
    em_pop(e);
  }
  em_touch_buffer(e, x->buffer);
}

static void prefetch(em *e, const lp_stmt *x) {
  em_kernel *s = e->kernel;
  int64_t stride = 0, bytes = (s->width ? s->width : 1) * (int64_t)tt_dtype_size(s->k->buffers[x->buffer].dtype);
  if (!em_affine(e, x->index, &stride) || stride > 1) return;
  em_val first = em_place(e, x->buffer, x->index);
  unsigned id = LLVMLookupIntrinsicID("llvm.prefetch", 13);
  for (int64_t at = 0; at < bytes; at += 64) {
    em_val offset = em_int(e->i64, (uint64_t)at), p = at ? LLVMBuildGEP2(e->b, e->i8, first, &offset, 1, "") : first;
    em_val args[4] = {p, em_int(e->i32, 0), em_int(e->i32, x->op == 2 ? 2 : 3), em_int(e->i32, 1)};      /* to read, to L2 or L1, data */
    LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->context, id, &e->ptr, 1), LLVMGetIntrinsicDeclaration(e->module, id, &e->ptr, 1), args, 4, "");
  }
}

void em_statement(em *e, const lp_stmt *x) {
  em_kernel *s = e->kernel;
  int64_t index = 0;
  em_local *l = x->kind == LS_LOCAL || x->kind == LS_SET || x->kind == LS_REDUCE ? &s->locals[x->local] : NULL;
  if (l && x->index) {
    if (em_expr(e, x->index)->kind != LX_CONST) { em_bad(e, "the index of a local is not constant", x->index); return; }
    index = em_expr(e, x->index)->imm;
  }
  if (l && x->kind != LS_LOCAL && (!l->live || index < 0 || index >= s->k->locals[x->local].count)) {
    em_bad(e, "a local is set outside of its scope", x->value);
    return;
  }
  switch (x->kind) {
  case LS_FOR: for_loop(e, x); break;
  case LS_LOCAL: {
    em_val v = x->value ? em_wide(e, x->value) : LLVMConstNull(em_type(e, s->k->locals[x->local].dtype, s->width));
    for (int i = 0; i < s->k->locals[x->local].count; i++) l->values[i] = v;
    if (l->width != s->width || !l->live) s->generation++;
    l->width = s->width, l->live = true;
    em_touch_local(e, x->local);
    break;
  }
  case LS_SET: {
    em_val v = l->width ? em_wide(e, x->value) : em_value(e, x->value);
    if (!l->width && em_width(v)) { em_bad(e, "a vector is set into a scalar local", x->value); return; }
    l->values[index] = v;
    em_touch_local(e, x->local);
    break;
  }
  case LS_REDUCE: {
    tt_dtype t = s->k->locals[x->local].dtype;
    em_val v = l->width ? em_wide(e, x->value) : em_value(e, x->value);
    if (!l->width && em_width(v)) { em_bad(e, "a vector is reduced into a scalar local", x->value); return; }
    if (l->width && s->active < s->width) v = LLVMBuildSelect(e->b, em_mask(e, s->width, s->active), v, em_identity(e, (ir_op)x->op, t, s->width), "");
    l->values[index] = em_combine(e, (ir_op)x->op, t, l->values[index], v);
    em_touch_local(e, x->local);
    break;
  }
  case LS_STORE: store(e, x); break;
  case LS_TILES: em_tiles(e, x); break;
  case LS_PREFETCH: prefetch(e, x); break;
  case LS_IF: {
    if (em_is_vector(e, x->guard)) { em_bad(e, "an if on a vector", x->guard); return; }
    conditional(e, em_value(e, x->guard), x->body, NULL);
    break;
  }
  }
}

static void statements(em *e, const lp_stmt *s) {
  for (; s && !e->kernel->failed; s = s->next) {
    const lp_stmt *last = em_store_columns(e, s);
    if (last) s = last;
    else em_statement(e, s);
  }
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

/* The addresses of all buffers that streams are checked for, or-ed. */
static void find_checked(em *e, const lp_stmt *x, em_val *addresses) {
  for (; x; x = x->next) {
    if (x->kind == LS_STORE && x->stream == LP_CHECK) {
      em_val address = LLVMBuildPtrToInt(e->b, e->kernel->pointers[x->buffer], e->i64, "");
      *addresses = *addresses ? LLVMBuildOr(e->b, *addresses, address, "") : address;
    }
    find_checked(e, x->body, addresses);
  }
}

/* Streamed stores are seen by other threads in no order until a fence. */
static void fence(em *e) {
  unsigned id = LLVMLookupIntrinsicID("llvm.x86.sse.sfence", 19);
  LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->context, id, NULL, 0), LLVMGetIntrinsicDeclaration(e->module, id, NULL, 0), NULL, 0, "");
}

static void body(em *e, const lp_kernel *k) {
  em_kernel *s = e->kernel;
  em_val args = LLVMGetParam(e->function, 0), begin = LLVMGetParam(e->function, 1), end = LLVMGetParam(e->function, 2);
  LLVMBasicBlockRef entry = em_block(e), work = em_block(e), done = em_block(e);
  LLVMPositionBuilderAtEnd(e->b, done);
  LLVMBuildRetVoid(e->b);
  LLVMPositionBuilderAtEnd(e->b, entry);
  LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, begin, end, ""), work, done);
  LLVMPositionBuilderAtEnd(e->b, work);
  int64_t offset = 0;
  for (int i = 0; i < k->n_buffers; i++) {
    const lp_buffer *f = &k->buffers[i];
    em_val at_index = em_int(e->i64, (uint64_t)(f->scratch ? offset : i));
    if (f->again) {
      s->pointers[i] = s->pointers[f->again - 1];
    } else if (f->scratch) {
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
  s->var_multiple[0] = s->var_multiple[k->begin] = 1;
  s->vars[k->begin] = begin;
  em_val unaligned = NULL;
  find_checked(e, k->body, &unaligned);
  LLVMBasicBlockRef ways[2] = {NULL, NULL};
  em_val pre = NULL;
  if (unaligned) {                                          /* all twice: with streams and without */
    em_val low = LLVMBuildAnd(e->b, unaligned, em_int(e->i64, 63), "");
    ways[0] = em_block(e), ways[1] = em_block(e);
    pre = LLVMBuildCondBr(e->b, LLVMBuildICmp(e->b, LLVMIntEQ, low, em_int(e->i64, 0), ""), ways[0], ways[1]);
  }
  for (int way = 0; way < (unaligned ? 2 : 1) && !s->failed; way++) {
    s->checked = unaligned && way == 0;
    s->streamed = false;
    if (pre) {
      LLVMPositionBuilderAtEnd(e->b, ways[way]);
      em_push(e, (em_scope){.pre = pre});
    }
    if (k->tasks == 1) {
      s->vars[0] = em_int(e->i64, 0);
      statements(e, k->body);
    } else {
      loop(e, 0, begin, end, 1, k->body, &c);
    }
    if (pre) em_pop(e);
    if (s->failed) return;
    if (s->streamed) fence(e);
    LLVMBuildBr(e->b, done);
  }
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
  s->pointers = em_take(e, (size_t)k->n_buffers + 1, sizeof *s->pointers);
  s->needs = em_take(e, n, sizeof *s->needs);
  s->vector_of = em_take(e, n, sizeof *s->vector_of);
  for (int i = 0; i < EM_N_CACHES; i++) s->cache[i] = em_take(e, n, sizeof **s->cache);
  s->vars = em_take(e, (size_t)k->n_vars + 1, sizeof *s->vars);
  s->var_multiple = em_take(e, (size_t)k->n_vars + 1, sizeof *s->var_multiple);
  s->locals = em_take(e, (size_t)k->n_locals + 1, sizeof *s->locals);
  for (int l = 0; l < k->n_locals && !s->failed; l++) s->locals[l].values = em_take(e, (size_t)k->locals[l].count + 1, sizeof(em_val));
  if (!s->failed) {
    em_find_needs(e);
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
