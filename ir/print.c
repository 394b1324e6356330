/* print.c: a graph as text, one row a line. The grammar is in ir.h, an example in text.h; parse.c reads it back.
 *
 * Printed are all inputs and params, and the rows that outputs and effects need (all rows, when there is neither: a graph
 * that is still being made). A number prints with as few digits as read back to the same bits. */
#include "eval.h"
#include "text.h"

#include <inttypes.h>
#include <locale.h>
#include <stdio.h>

typedef struct { const ir_graph **at; char (*names)[80]; uint32_t n, cap; } functions;

typedef struct {
  const ir_graph *g;
  const functions *functions;
  const char *name;         /* of the function */
  char *text;
  size_t n, cap;
  bool failed;
  bool *live;
  uint32_t *position;       /* of each printed row, for those without a name */
  bool leaf_renamed;        /* some input's name belongs to another row: names must be compared */
} printer;

static void put_n(printer *p, const char *s, size_t n) {
  if (p->failed) return;
  if (p->n + n + 1 > p->cap) {
    size_t cap = 2 * p->cap + n + 1024;
    char *more = realloc(p->text, cap);
    if (!more) { p->failed = true; return; }
    p->text = more;
    p->cap = cap;
  }
  memcpy(p->text + p->n, s, n);
  p->text[p->n += n] = 0;
}
static void put(printer *p, const char *s) { put_n(p, s, strlen(s)); }
static void put_int(printer *p, int64_t v) {
  char s[32];
  put_n(p, s, (size_t)snprintf(s, sizeof s, "%" PRId64, v));
}

static void put_quoted(printer *p, const char *s) {
  put(p, "\"");
  for (; *s; s++) {
    char code[8];
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') put_n(p, (char[]){'\\', *s}, 2);
    else if (c == '\n') put(p, "\\n");
    else if (c == '\t') put(p, "\\t");
    else if (c < 0x20 || c == 0x7f) put_n(p, code, (size_t)snprintf(code, sizeof code, "\\x%02x", c));
    else put_n(p, s, 1);
  }
  put(p, "\"");
}

/* A name after % or @, or of an output. */
static void put_name(printer *p, const char *name) {
  size_t n = 0;
  while (text_is_word_char(name[n])) n++;
  if (n == 0 || name[n] || text_is_digits(name, n)) put_quoted(p, name);
  else put_n(p, name, n);
}

/* A file or a scope of an origin: bare unless that could be read otherwise. */
static void put_path(printer *p, const char *s) {
  bool bare = *s != 0;
  for (const char *c = s; *c; c++) bare &= *c > ' ' && *c != 0x7f && !strchr(";:\"\\", *c);
  if (bare) put(p, s);
  else put_quoted(p, s);
}

static void put_type(printer *p, tt_dtype t, const tt_shape *s) {
  char text[256];
  put(p, tt_type_text(t, s, text, sizeof text));
}

/* As few digits as store the same bits again. Fewer than `digits` never do, but for subnormals. */
static int shortest(tt_dtype t, const void *data, int64_t i, char *text, size_t size) {
  double v = ir_load_double(t, data, i);
  if (v != v) return snprintf(text, size, "nan");
  if (isinf(v)) return snprintf(text, size, v < 0 ? "-inf" : "inf");
  const int digits[TT_N_DTYPES] = {[TT_F32] = 6, [TT_F64] = 15, [TT_F16] = 3, [TT_BF16] = 2};
  const double normal[TT_N_DTYPES] = {[TT_F32] = 0x1p-126, [TT_F64] = 0x1p-1022, [TT_F16] = 0x1p-14, [TT_BF16] = 0x1p-126};
  int n = 0;
  for (int d = fabs(v) < normal[t] ? 1 : digits[t]; d <= 17; d++) {
    uint64_t again = 0;
    n = snprintf(text, size, "%.*g", d, v);
    ir_store_double(t, &again, 0, strtod(text, NULL));
    if (!memcmp(&again, (const char *)data + (size_t)i * tt_dtype_size(t), tt_dtype_size(t))) break;
  }
  return n;
}

static void put_element(printer *p, tt_dtype t, const void *data, int64_t i) {
  char s[40];
  union { int64_t i; uint64_t u; } w;
  if (tt_dtype_in(t, TT_REAL)) { put_n(p, s, (size_t)shortest(t, data, i, s, sizeof s)); return; }
  ev_widen(t, data, i, 1, &w);
  put_n(p, s, (size_t)(tt_dtype_in(t, TT_SINT) ? snprintf(s, sizeof s, "%" PRId64, w.i) : snprintf(s, sizeof s, "%" PRIu64, w.u)));
}

static void put_ints(printer *p, const int64_t *v, int64_t n) {
  put(p, "[");
  for (int64_t i = 0; i < n; i++) put(p, i ? "," : ""), put_int(p, v[i]);
  put(p, "]");
}

/* An input's name is its own; another row of that name prints as its number. */
static const char *name_of(const printer *p, ir_ref r) {
  const ir_node *n = ir_at(p->g, r);
  if (n->op == IR_input || n->op == IR_param) return ir_str(n, "name");
  return n->name && p->leaf_renamed && ir_find(p->g, n->name) ? NULL : n->name;
}

static void put_ref(printer *p, ir_ref r) {
  const char *name = name_of(p, r);
  put(p, "%");
  if (name) put_name(p, name);
  else put_int(p, p->position[r]);
}

static void put_attributes(printer *p, const ir_node *n) {
  const int64_t *w = n->words;
  const char *comma = n->n_args ? ", " : "";
  for (int i = 0; i < 8 && ir_ops[n->op].attrs[i].kind != IR_ATTR_END; i++) {
    const char *name = ir_ops[n->op].attrs[i].name;
    int64_t v = *w++, neutral;
    switch (ir_ops[n->op].attrs[i].kind) {
      case IR_ATTR_TYPE:
        if (!strcmp(name, "dtype")) continue;
        break;
      case IR_ATTR_INTS:
        w += v;
        if (!strcmp(name, "shape")) continue;
        break;
      case IR_ATTR_INT:
        if (text_neutral(name, &neutral) && v == neutral) continue;
        break;
      default: break;
    }
    put(p, comma), put(p, name), put(p, "=");
    comma = ", ";
    switch (ir_ops[n->op].attrs[i].kind) {
      case IR_ATTR_TYPE: put(p, tt_dtype_name((tt_dtype)v)); break;
      case IR_ATTR_INTS: put_ints(p, w - v, v); break;
      case IR_ATTR_FLOAT: put_element(p, TT_F64, &v, 0); break;
      case IR_ATTR_STR: put_quoted(p, (const char *)(intptr_t)v); break;
      case IR_ATTR_FUNC:
        for (uint32_t k = 0; k < p->functions->n; k++)
          if (p->functions->at[k] == p->g->functions[v]) put(p, "@"), put_name(p, p->functions->names[k]);
        break;
      case IR_ATTR_DATA:
        if (n->rank) put(p, "[");
        for (int64_t k = 0, count = ev_count(n); k < count; k++) put(p, k ? "," : ""), put_element(p, n->dtype, p->g->blobs[v].data, k);
        if (n->rank) put(p, "]");
        break;
      default: put_int(p, v);
    }
  }
}

static void put_origins(printer *p, uint32_t origin) {
  const char *before = "  # ";
  for (uint32_t o = origin; o; o = p->g->origins[o].next, before = "; ") {
    const ir_origin *at = &p->g->origins[o];
    put(p, before), put_path(p, at->file ? at->file : "?"), put(p, ":"), put_int(p, at->line);
    if (at->scope) put(p, " "), put_path(p, at->scope);
  }
  put(p, "\n");
}

static void put_row(printer *p, ir_ref r, const char *indent) {
  const ir_node *n = ir_at(p->g, r);
  tt_shape s = ir_shape(p->g, r);
  put(p, indent), put_ref(p, r), put(p, " = "), put(p, ir_ops[n->op].name), put(p, "(");
  for (uint32_t i = 0; i < n->n_args; i++) put(p, i ? ", " : ""), put_ref(p, n->args[i]);
  put_attributes(p, n);
  put(p, ") : "), put_type(p, (tt_dtype)n->dtype, &s);
  if (n->place != IR_UNPLACED) put(p, " @"), put_int(p, n->place);
  put_origins(p, n->origin);
}

void text_mark_results(const ir_graph *g, const bool *live, const uint32_t *run, bool *result) {
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    for (uint32_t i = 0; (!live || live[r]) && i < n->n_args; i++)
      if (run[n->args[i]] != run[r]) result[n->args[i]] = true;
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) result[g->outputs[i].value] = true;
}

static void put_header(printer *p) {
  const ir_graph *g = p->g;
  const char *comma = "";
  put(p, "func @"), put_name(p, p->name), put(p, "(");
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    tt_shape s = ir_shape(g, r);
    if (n->op != IR_input && n->op != IR_param) continue;
    put(p, comma), put(p, n->op == IR_input ? "" : ir_int(n, "trainable") ? "param " : "state ");
    put_ref(p, r), put(p, ": "), put_type(p, (tt_dtype)n->dtype, &s);
    comma = ", ";
  }
  put(p, ") -> ");
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    tt_shape s = ir_shape(g, g->outputs[i].value);
    put(p, i ? ", " : ""), put_type(p, (tt_dtype)ir_at(g, g->outputs[i].value)->dtype, &s);
  }
  if (!g->n_outputs) put(p, "()");
  if (g->arena_bytes) put(p, " arena="), put_int(p, g->arena_bytes);
  put(p, " {\n");
}

/* rows: a run of one kernel. */
static void put_kernel(printer *p, const ir_ref *rows, uint32_t n, uint32_t current, const uint32_t *run, uint32_t *seen, const bool *result) {
  const ir_kernel *k = &p->g->kernels[ir_at(p->g, rows[0])->region];
  const char *comma = "";
  put(p, "  kernel @"), put_name(p, k->name), put(p, "(");
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t j = 0; j < ir_at(p->g, rows[i])->n_args; j++) {
      ir_ref a = ir_at(p->g, rows[i])->args[j];
      if (text_new_argument(run, seen, current, a)) put(p, comma), put_ref(p, a), comma = ", ";
    }
  put(p, ") ->");
  comma = " ";
  for (uint32_t i = 0; i < n; i++)
    if (result[rows[i]]) put(p, comma), put_ref(p, rows[i]), comma = ", ";
  put(p, " [");
  for (uint32_t i = 0; i < k->n_plan; i++) {
    put(p, i ? ", " : ""), put_name(p, k->plan[i].name), put(p, "=");
    if (k->plan[i].n == 1) put_int(p, k->plan[i].values[0]);
    else put_ints(p, k->plan[i].values, k->plan[i].n);
  }
  put(p, "] {\n");
  for (uint32_t i = 0; i < n; i++) put_row(p, rows[i], "    ");
  put(p, "  }\n");
}

static void print(printer *p, ir_ref *rows, uint32_t *run, uint32_t *seen, bool *result) {
  const ir_graph *g = p->g;
  uint32_t n = 0, n_runs = 0, position = 0;
  if (!g->n_outputs && !g->n_effects) memset(p->live, true, g->n_nodes);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *node = ir_at(g, r);
    if (node->op != IR_input && node->op != IR_param) continue;
    p->position[r] = position++;
    p->leaf_renamed |= !node->name || strcmp(node->name, ir_str(node, "name"));
  }
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *node = ir_at(g, r);
    if (!p->live[r] || node->op == IR_input || node->op == IR_param || node->op == IR_assign) continue;
    p->position[r] = position++;
    bool same = n && ir_at(g, rows[n - 1])->region == node->region;
    if (node->region) run[r] = same ? n_runs : ++n_runs;
    rows[n++] = r;
  }
  text_mark_results(g, p->live, run, result);
  put_header(p);
  for (uint32_t i = 0, j; i < n; i = j) {
    for (j = i + 1; run[rows[i]] && j < n && run[rows[j]] == run[rows[i]];) j++;
    if (run[rows[i]]) put_kernel(p, rows + i, j - i, run[rows[i]], run, seen, result);
    else put_row(p, rows[i], "  ");
  }
  for (uint32_t i = 0; i < g->n_effects; i++) {
    const ir_node *e = ir_at(g, g->effects[i]);
    put(p, "  assign("), put_ref(p, e->args[0]), put(p, ", "), put_ref(p, e->args[1]), put(p, ")");
    put_origins(p, e->origin);
  }
  put(p, "  return");
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    put(p, i ? ", " : " ");
    if (g->outputs[i].name) put_name(p, g->outputs[i].name), put(p, "=");
    put_ref(p, g->outputs[i].value);
  }
  put(p, "\n}\n");
}

/* One function, to the end of what is there. */
static void print_function(printer *to, const ir_graph *g) {
  printer p = {.g = g, .name = to->name, .functions = to->functions, .text = to->text, .n = to->n, .cap = to->cap, .live = ir_live(g), .position = calloc(g->n_nodes, sizeof *p.position)};
  ir_ref *rows = malloc(g->n_nodes * sizeof *rows);
  uint32_t *run = calloc(g->n_nodes, sizeof *run), *seen = calloc(g->n_nodes, sizeof *seen);
  bool *result = calloc(g->n_nodes, sizeof *result);
  if (p.live && p.position && rows && run && seen && result) print(&p, rows, run, seen, result);
  else p.failed = true;
  free(p.live), free(p.position), free(rows), free(run), free(seen), free(result);
  to->text = p.text, to->n = p.n, to->cap = p.cap, to->failed |= p.failed;
}

static bool named(const functions *f, const char *name) {
  for (uint32_t i = 0; i < f->n; i++)
    if (!strcmp(f->names[i], name)) return true;
  return false;
}

/* The functions that g needs, each once and under a name of its own, before those that call them. */
static bool collect(functions *f, const ir_graph *g) {
  bool *live = g->n_functions ? ir_live(g) : NULL, ok = live || !g->n_functions;
  if (live && !g->n_outputs && !g->n_effects) memset(live, true, g->n_nodes);
  for (ir_ref r = 1; live && ok && r < g->n_nodes; r++) {
    if (!live[r] || ir_at(g, r)->op != IR_scan) continue;
    const ir_graph *body = ir_scan_body(g, ir_at(g, r));
    bool known = false;
    for (uint32_t i = 0; i < f->n && !known; i++) known = f->at[i] == body;
    if (known || !(ok = collect(f, body))) continue;
    if (f->n == f->cap) {
      f->cap = f->cap ? 2 * f->cap : 8;
      void *at = realloc(f->at, f->cap * sizeof *f->at), *names = at ? realloc(f->names, f->cap * sizeof *f->names) : NULL;
      if (at) f->at = at;
      if (!(ok = names != NULL)) break;
      f->names = names;
    }
    char name[80];
    snprintf(name, sizeof name, "%.60s", body->name);
    for (int i = 2; named(f, name); i++) snprintf(name, sizeof name, "%.60s.%d", body->name, i);
    f->at[f->n] = body;
    memcpy(f->names[f->n++], name, sizeof name);
  }
  free(live);
  return ok;
}

char *ir_print(const ir_graph *g) {
  functions f = {0};
  printer p = {.functions = &f};
  locale_t c = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0), before = c ? uselocale(c) : (locale_t)0;      /* 0.5, never 0,5 */
  if (c && collect(&f, g)) {
    for (uint32_t i = 0; i < f.n; i++) {
      p.name = f.names[i];
      print_function(&p, f.at[i]);
      put(&p, "\n");
    }
    p.name = g->name;
    print_function(&p, g);
  } else p.failed = true;
  if (c) uselocale(before), freelocale(c);
  free(f.at), free(f.names);
  if (p.failed) free(p.text), p.text = NULL;
  return p.text;
}
