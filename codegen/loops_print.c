/* loops_print.c: kernels as text. Buffers, locals and variables have generic names (b0, l0, i0), so that kernels which are
 * equal up to names differ in their first word only; everything that code depends on is in the text. A subexpression that a
 * statement uses more than once stands before it as `t = ...`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loops_inner.h"

typedef struct {
  const lp_kernel *k;
  char *text; size_t n, cap;
  bool failed;
  uint32_t *uses;             /* in the current statement */
  uint32_t *names;            /* number of the t that holds it, 0: none */
  lp_ref *touched; uint32_t n_touched;
  uint32_t next_name;
  int depth;
} printer;

static void put(printer *p, const char *format, ...) TT_PRINTF(2, 3);
static void put(printer *p, const char *format, ...) {
  char piece[256];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(piece, sizeof piece, format, args);
  va_end(args);
  if (n >= (int)sizeof piece) n = sizeof piece - 1;
  if (p->n + (size_t)n + 1 > p->cap) {
    size_t cap = p->cap ? p->cap * 2 : 4096;
    char *text = realloc(p->text, cap);
    if (!text) p->failed = true;
    if (p->failed) return;
    p->text = text;
    p->cap = cap;
  }
  memcpy(p->text + p->n, piece, (size_t)n + 1);
  p->n += (size_t)n;
}

static void print_const(printer *p, const lp_expr *x) {
  if (x->dtype == TT_I64) {
    put(p, "%" PRId64, x->imm);
  } else if (x->dtype == TT_BOOL) {
    put(p, x->imm ? "true" : "false");
  } else if (x->dtype == TT_F64) {
    double v;
    memcpy(&v, &x->imm, 8);
    if (v - v == 0) put(p, "%.17g:f64", v);
    else put(p, "0x%" PRIx64 ":f64", (uint64_t)x->imm);
  } else if (tt_dtype_in(x->dtype, TT_REAL)) {
    uint32_t bits = (uint32_t)x->imm;
    float v;
    memcpy(&v, &bits, 4);
    if (v - v == 0) put(p, "%.9g:%s", v, tt_dtype_name(x->dtype));
    else put(p, "0x%x:%s", bits, tt_dtype_name(x->dtype));
  } else {
    put(p, x->dtype == TT_U64 ? "%" PRIu64 ":%s" : "%" PRId64 ":%s", x->imm, tt_dtype_name(x->dtype));
  }
}

static void print_var(printer *p, int64_t var) {
  if (var && var == p->k->begin) put(p, "begin");
  else if (var) put(p, "i%" PRId64, var);
  else put(p, "task");
}

/* level 0: anything; 1: in a sum; 2: in a product */
static void print_expr(printer *p, lp_ref e, int level, lp_ref defining) {
  const lp_kernel *k = p->k;
  if (p->names[e] && e != defining) {
    put(p, "t%u", p->names[e]);
    return;
  }
  const lp_expr *x = &k->exprs[e];
  static const char *const infix[] = {" + ", "*", "/", "%"};
  switch (x->kind) {
  case LX_CONST: print_const(p, x); return;
  case LX_VAR: print_var(p, x->imm); return;
  case LX_LOCAL:
    put(p, "l%" PRId64, x->imm);
    if (x->a[0]) put(p, "["), print_expr(p, x->a[0], 0, defining), put(p, "]");
    return;
  case LX_LOAD:
    put(p, "load b%" PRId64 "[", x->imm);
    print_expr(p, x->a[0], 0, defining);
    put(p, "]");
    if (x->a[1]) put(p, " if "), print_expr(p, x->a[1], 2, defining);
    if (x->a[2]) put(p, " else "), print_expr(p, x->a[2], 2, defining);
    return;
  case LX_FMA: put(p, "fma"); break;
  case LX_DOT: put(p, "dot"); break;
  case LX_PHILOX: put(p, "random<%" PRId64 ">", x->imm); break;
  default: {
    int which = x->op == IR_add ? 0 : x->op == IR_mul ? 1 : x->op == IR_div ? 2 : x->op == IR_fmod ? 3 : -1;
    if (x->dtype == TT_I64 && which >= 0) {
      bool brackets = level > (which ? 1 : 0) && !(level == 1 && !which);
      if (brackets) put(p, "(");
      print_expr(p, x->a[0], which ? 2 : 1, defining);
      put(p, "%s", infix[which]);
      print_expr(p, x->a[1], which ? 2 : 1, defining);
      if (brackets) put(p, ")");
      return;
    }
    put(p, "%s", ir_ops[x->op].name);
    if (x->op == IR_cast || x->op == IR_bitcast) put(p, "<%s>", tt_dtype_name(x->dtype));
  }
  }
  put(p, "(");
  for (int i = 0; i < 3 && x->a[i]; i++) {
    if (i) put(p, ", ");
    print_expr(p, x->a[i], 0, defining);
  }
  put(p, ")");
}

static void indent(printer *p) {
  for (int i = 0; i < p->depth; i++) put(p, "  ");
}

static void count(printer *p, lp_ref e) {
  if (!e || p->uses[e]++) return;
  p->touched[p->n_touched++] = e;
  for (int i = 0; i < 3; i++) count(p, p->k->exprs[e].a[i]);
}

/* Short index arithmetic is clearer where it stands. */
static bool is_short(const lp_kernel *k, lp_ref e, int depth) {
  const lp_expr *x = &k->exprs[e];
  if (x->kind == LX_CONST || x->kind == LX_VAR || x->kind == LX_LOCAL) return true;
  if (x->kind != LX_OP || x->dtype != TT_I64 || depth == 0) return false;
  for (int i = 0; i < 3; i++)
    if (x->a[i] && !is_short(k, x->a[i], depth - 1)) return false;
  return true;
}

static void define(printer *p, lp_ref e) {
  if (!e || p->names[e] || p->uses[e] == 0) return;
  const lp_expr *x = &p->k->exprs[e];
  uint32_t uses = p->uses[e];
  p->uses[e] = 0;                                          /* visited */
  for (int i = 0; i < 3; i++) define(p, x->a[i]);
  if (uses < 2 || is_short(p->k, e, 3)) return;
  uint32_t name = ++p->next_name;
  indent(p);
  put(p, "t%u = ", name);
  p->names[e] = name;
  print_expr(p, e, 0, e);
  put(p, "\n");
}

static void print_list(printer *p, const lp_stmt *s) {
  const lp_kernel *k = p->k;
  for (; s; s = s->next) {
    p->n_touched = 0;
    count(p, s->index), count(p, s->value), count(p, s->guard);
    define(p, s->index), define(p, s->value), define(p, s->guard);
    indent(p);
    switch (s->kind) {
    case LS_FOR:
      put(p, "for i%d in %" PRId64 "..%" PRId64, s->var, s->begin, s->end);
      if (s->step != 1) put(p, " step %" PRId64, s->step);
      if (s->lanes > 1) put(p, " vec %d", s->lanes);
      if (s->unroll) put(p, " unroll");
      break;
    case LS_LOCAL:
      put(p, "local l%d: %s", s->local, tt_dtype_name(k->locals[s->local].dtype));
      if (k->locals[s->local].count != 1) put(p, "[%d]", k->locals[s->local].count);
      put(p, " = ");
      break;
    case LS_SET: case LS_REDUCE:
      put(p, s->kind == LS_SET ? "l%d" : "reduce l%d", s->local);
      if (s->index) put(p, "["), print_expr(p, s->index, 0, 0), put(p, "]");
      if (s->kind == LS_SET) put(p, " = ");
      else put(p, " %s= ", ir_ops[s->op].name);
      break;
    case LS_PREFETCH:
      put(p, "prefetch%s b%d[", s->op == 2 ? "2" : "", s->buffer);
      print_expr(p, s->index, 0, 0);
      put(p, "]");
      break;
    case LS_TILES:
      put(p, "tiles %dx%dx%d b%d[", s->tiles->rows, s->tiles->lanes, s->tiles->pairs, s->tiles->c);
      print_expr(p, s->index, 0, 0);
      put(p, "; %" PRId64 "] %s dot(b%d[", s->tiles->c_stride, s->tiles->add ? "+=" : "=", s->tiles->a);
      print_expr(p, s->value, 0, 0);
      put(p, "; %" PRId64 "], b%d[", s->tiles->a_stride, s->tiles->b);
      print_expr(p, s->guard, 0, 0);
      put(p, "; %" PRId64 "])", s->tiles->b_stride);
      break;
    case LS_STORE:
      put(p, "%sstore b%d[", s->stream == LP_CHECK ? "stream? " : s->stream ? "stream " : "", s->buffer);
      print_expr(p, s->index, 0, 0);
      put(p, "] = ");
      break;
    default: put(p, "if "); print_expr(p, s->guard, 0, 0);
    }
    if (s->kind != LS_FOR && s->kind != LS_IF && s->kind != LS_PREFETCH && s->kind != LS_TILES) {
      print_expr(p, s->value, 0, 0);
      if (s->guard) put(p, " if "), print_expr(p, s->guard, 0, 0);
    }
    for (uint32_t i = 0; i < p->n_touched; i++) p->uses[p->touched[i]] = p->names[p->touched[i]] = 0;
    if (s->kind == LS_FOR || s->kind == LS_IF) {
      put(p, " {\n");
      p->depth++;
      print_list(p, s->body);
      p->depth--;
      indent(p);
      put(p, "}");
    }
    put(p, "\n");
  }
}

char *lp_print(const lp_kernel *k) {
  printer p = {.k = k, .depth = 1};
  uint32_t *tables = calloc(3 * (size_t)k->n_exprs + 1, sizeof *tables);
  if (!tables) return NULL;
  p.uses = tables;
  p.names = tables + k->n_exprs;
  p.touched = tables + 2 * (size_t)k->n_exprs;
  put(&p, "kernel %s(", k->name);
  for (int i = 0; i < k->n_buffers; i++) {
    const lp_buffer *b = &k->buffers[i];
    put(&p, "%s%s%sb%d: %s[%" PRId64 "]", i ? ", " : "", b->scratch && !b->again ? "scratch " : "", b->written ? "out " : "", i, tt_dtype_name(b->dtype), b->count);
    if (b->again) put(&p, " of b%d", b->again - 1);
  }
  put(&p, ") tasks=%" PRId64 " {\n", k->tasks);
  print_list(&p, k->body);
  put(&p, "}\n");
  free(tables);
  if (p.failed) free(p.text);
  return p.failed ? NULL : p.text;
}
