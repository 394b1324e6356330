/* parse.c: text to graph. The grammar is in ir.h, an example in text.h.
 *
 * Rows are made as told (g->plain: nothing folds or merges). The type of every row, the types of the function and the arguments
 * and results of every kernel are said by the text and checked against what follows from the rows. The text may come from
 * anywhere: what is allocated is limited by its length, and nothing recurses. */
#include "parse.h"

#include <inttypes.h>
#include <locale.h>
#include <stdio.h>

enum { MAX_LEAVES = 1 << 13 };

/* ---- rows */

/* Levenshtein's distance, for words of at most 31 letters. */
static int distance(const char *a, size_t n, const char *b, size_t m) {
  int row[32];
  for (size_t j = 0; j <= m; j++) row[j] = (int)j;
  for (size_t i = 1; i <= n; i++) {
    int diagonal = row[0];
    row[0] = (int)i;
    for (size_t j = 1; j <= m; j++) {
      int best = diagonal + (a[i - 1] != b[j - 1]);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = row[j], row[j] = best;
    }
  }
  return row[m];
}

static bool op_name(parser *p, ir_op *op) {
  parse_space(p);
  size_t n = parse_word(p), at = p->at;
  *op = ir_op_by_name(p->text + at, n);
  if (*op == IR_input || *op == IR_param) EXPECTED(at, "inputs and params among the function's arguments, found %s", FOUND(at));
  if (*op == IR_assign) EXPECTED(at, "assign(%%param, %%value) without a name, found %s", FOUND(at));
  if (*op != IR_poison) return p->at += n, true;
  const char *nearest = NULL;
  int least = 4;
  for (int i = 1; n && n < 32 && i < IR_N_OPS; i++) {
    int d = distance(p->text + at, n, ir_ops[i].name, strlen(ir_ops[i].name));
    if (d < least && d < (int)n) least = d, nearest = ir_ops[i].name;
  }
  if (nearest) EXPECTED(at, "an op, perhaps %s, found %s", nearest, FOUND(at));
  EXPECTED(at, "an op, found %s", FOUND(at));
}

/* An attribute as read: one word, or a list. A constant's value is read when the type is known: `at` is where it stands. */
typedef struct { bool given; int64_t word, list[TT_MAX_RANK]; size_t n, at; } attribute;

static bool attribute_value(parser *p, int kind, attribute *a) {
  parse_space(p);
  a->at = p->at;
  switch (kind) {
    case IR_ATTR_INT: return parse_integer(p, "a whole number", &a->word);
    case IR_ATTR_FLOAT: return parse_element(p, TT_F64, &a->word, 0);
    case IR_ATTR_INTS:
      if (!parse_integers(p, &a->n)) return false;
      if (a->n > TT_MAX_RANK) EXPECTED(a->at, "at most %d numbers, found %zu", TT_MAX_RANK, a->n);
      if (a->n) memcpy(a->list, p->list, a->n * sizeof *a->list);
      return true;
    case IR_ATTR_TYPE: {
      size_t n = parse_word(p);
      tt_dtype t;
      if (!tt_dtype_parse(p->text + p->at, n, &t)) EXPECTED(p->at, "an element type, say f32, found %s", FOUND(p->at));
      p->at += n;
      return a->word = t, true;
    }
    case IR_ATTR_STR: {
      const char *text;
      if (p->at >= p->n || p->text[p->at] != '"') EXPECTED(p->at, "a quoted text, found %s", FOUND(p->at));
      if (!parse_quoted(p, &text)) return false;
      return a->word = (int64_t)(intptr_t)text, true;
    }
    case IR_ATTR_FUNC: {
      const char *text;
      if (!parse_need(p, "@") || !parse_name(p, "the name of a function", &text)) return false;
      for (uint32_t i = p->n_functions; i-- > 0;)
        if (!strcmp(p->functions[i]->name, text)) return (a->word = ir_function_add(p->g, p->functions[i])) >= 0 || parse_refused(p, a->at);
      EXPECTED(a->at, "a function that stands before this one, found %s", FOUND(a->at));
    }
    default:                                        /* IR_ATTR_DATA: passed over; a->n is how many numbers there are at most */
      a->n = 1;
      if (p->at < p->n && p->text[p->at] == '[') {
        for (; p->at < p->n && p->text[p->at] != ']' && p->text[p->at] != ')'; p->at++) a->n += p->text[p->at] == ',';
        return parse_need(p, "]");
      }
      while (p->at < p->n && (text_is_word_char(p->text[p->at]) || p->text[p->at] == '-' || p->text[p->at] == '+')) p->at++;
      return true;
  }
}

/* A constant's value, "[" numbers "]" or, for rank 0, a number. */
static bool data(parser *p, attribute *a, tt_dtype t, const tt_shape *s) {
  size_t after = p->at;
  int64_t n = tt_shape_count(s);
  char one[8] = {0}, *to = one;
  p->at = a->at;
  bool list = parse_take(p, "[");
  if (!list && s->rank) EXPECTED(p->at, "[ and the numbers of the constant, found %s", FOUND(p->at));
  if (n > (int64_t)a->n) EXPECTED(a->at, "%" PRId64 " numbers, found at most %zu", n, a->n);
  if (n > 1) {
    if (!parse_room(p, (size_t)n, tt_dtype_size(t))) return false;
    to = p->list;
  }
  for (int64_t i = 0; i < n; i++)
    if ((i && !parse_need(p, ",")) || !parse_element(p, t, to, i)) return false;
  if (list && !parse_take(p, "]")) EXPECTED(p->at, "] after %" PRId64 " numbers, found %s", n, FOUND(p->at));
  p->at = after;
  a->word = ir_blob_add(p->g, to, (size_t)n * tt_dtype_size(t));
  return a->word >= 0 || parse_refused(p, a->at);
}

/* attr "=" value {"," attr "=" value} in the order of the op's row; required: a comma stands before. */
static bool attributes(parser *p, ir_op op, attribute *given, bool required) {
  for (int i = 0; i ? parse_take(p, ",") : required || !parse_next_is(p, ")"); i++) {
    parse_space(p);
    size_t at = p->at, n = parse_word(p);
    while (i < 8 && ir_ops[op].attrs[i].kind != IR_ATTR_END && !(strlen(ir_ops[op].attrs[i].name) == n && !memcmp(ir_ops[op].attrs[i].name, p->text + at, n))) i++;
    if (i == 8 || ir_ops[op].attrs[i].kind == IR_ATTR_END) {
      char names[200] = "";
      for (int k = 0; k < 8 && ir_ops[op].attrs[k].kind != IR_ATTR_END; k++) strcat(strcat(names, k ? ", " : " "), ir_ops[op].attrs[k].name);
      EXPECTED(at, "%s%s, found %s", *names ? "an attribute; those of this op are, in order," : ")", names, FOUND(at));
    }
    p->at += n;
    if (!parse_need(p, "=") || !attribute_value(p, ir_ops[op].attrs[i].kind, &given[i])) return false;
    given[i].given = true;
  }
  return true;
}

/* The attributes' words; those left out follow from the row's type, or are neutral. */
static bool words_of(parser *p, ir_op op, size_t at, attribute *given, tt_dtype t, const tt_shape *s, int64_t *words, uint32_t *n_words) {
  *n_words = 0;
  for (int i = 0; i < 8 && ir_ops[op].attrs[i].kind != IR_ATTR_END; i++) {
    attribute *a = &given[i];
    const char *attr = ir_ops[op].attrs[i].name;
    int kind = ir_ops[op].attrs[i].kind;
    if (kind == IR_ATTR_DATA && a->given && !data(p, a, t, s)) return false;
    if (!a->given && kind == IR_ATTR_TYPE && !strcmp(attr, "dtype")) a->word = t;
    else if (!a->given && kind == IR_ATTR_INTS && !strcmp(attr, "shape")) a->n = (size_t)s->rank, memcpy(a->list, s->dim, sizeof a->list);
    else if (!a->given && !(kind == IR_ATTR_INT && text_neutral(attr, &a->word))) EXPECTED(at, "attribute %s of %s, found ) without it", attr, ir_ops[op].name);
    words[(*n_words)++] = kind == IR_ATTR_INTS ? (int64_t)a->n : a->word;
    for (size_t k = 0; kind == IR_ATTR_INTS && k < a->n; k++) words[(*n_words)++] = a->list[k];
  }
  return true;
}

static bool row(parser *p) {
  ir_graph *g = p->g;
  uint64_t key;
  const char *text;
  size_t at, op_at;
  ir_op op;
  if (!parse_new_name(p, &key, &text, &at) || !parse_need(p, "=")) return false;
  parse_space(p);
  op_at = p->at;
  if (!op_name(p, &op) || !parse_need(p, "(")) return false;

  parse_space(p);
  size_t operands = p->at;
  uint32_t n_args = 0;
  bool comma = true;                                /* an operand may stand here */
  while (comma && parse_next_is(p, "%")) {
    if (!parse_grow(p, &p->args, n_args, &p->cap_args, sizeof *p->args) || !parse_reference(p, &p->args[n_args])) return false;
    n_args++;
    comma = parse_take(p, ",");
  }
  int arity = ir_ops[op].arity;
  if (arity < 0 ? !n_args : n_args != (uint32_t)arity)
    EXPECTED(operands, "%s%d operand%s of %s, found %u", arity < 0 ? "at least " : "",
             arity < 0 ? 1 : arity, arity == 1 || arity < 0 ? "" : "s", ir_ops[op].name, n_args);

  attribute given[8] = {0};
  tt_dtype t, is_t;
  tt_shape s, is;
  int64_t place = IR_UNPLACED, words[8 * (TT_MAX_RANK + 1)];
  uint32_t n_words, origin;
  if (n_args && !comma && !parse_next_is(p, ")")) EXPECTED(p->at, ", or ), found %s", FOUND(p->at));
  if (!attributes(p, op, given, n_args && comma)) return false;
  parse_space(p);
  size_t close = p->at;
  if (!parse_need(p, ")") || !parse_need(p, ":")) return false;
  parse_space(p);
  size_t type_at = p->at;
  if (!parse_type(p, &t, &s)) return false;
  parse_blanks(p);
  if (p->at < p->n && p->text[p->at] == '@') {
    size_t place_at = ++p->at;
    if (!parse_integer(p, "an offset after @", &place)) return false;
    if (place < 0) EXPECTED(place_at, "an offset of 0 or more, found %s", FOUND(place_at));
  }
  if (!parse_origins(p, &origin) || !words_of(p, op, close, given, t, &s, words, &n_words)) return false;

  g->at_origin = origin;
  ir_ref r = ir_emit(g, op, p->args, n_args, words, n_words);
  g->at_origin = 0;
  if (!r) return parse_refused(p, op_at);
  is_t = ir_at(g, r)->dtype, is = ir_shape(g, r);
  if (is_t != t || !tt_shape_equal(&is, &s)) {
    char has[256], says[256];
    EXPECTED(type_at, "%s, which is what %s gives, found %s", tt_type_text(is_t, &is, has, sizeof has), ir_ops[op].name, tt_type_text(t, &s, says, sizeof says));
  }
  ir_at(g, r)->place = place;
  if (text) ir_name(g, r, text);
  return parse_define(p, key, r, at);
}

/* ---- kernels */

/* Passes over names: they are checked when the rows are known. */
static bool skip_refs(parser *p, size_t *at) {
  uint64_t key;
  const char *text;
  parse_space(p);
  *at = p->at;
  if (!parse_next_is(p, "%")) return true;
  do
    if (!parse_key(p, &key, &text)) return false;
  while (parse_take(p, ","));
  return true;
}

static bool plan(parser *p, uint32_t kernel) {
  if (!parse_need(p, "[")) return false;
  for (int i = 0; !parse_take(p, "]"); i++) {
    const char *entry;
    size_t n;
    uint32_t have;
    if (i && !parse_need(p, ",")) return false;
    parse_space(p);
    size_t at = p->at;
    if (!parse_name(p, "the name of a plan's entry", &entry) || !parse_need(p, "=")) return false;
    if (ir_kernel_get(p->g, kernel, entry, &have)) EXPECTED(at, "each entry of a plan once, found %s again", FOUND(at));
    if (i == sizeof p->g->kernels->plan / sizeof p->g->kernels->plan[0]) EXPECTED(at, "] after %d entries of a plan, found %s", i, FOUND(at));
    if (parse_next_is(p, "[")) {
      if (!parse_integers(p, &n)) return false;
    } else {
      int64_t v;
      if (!parse_integer(p, "a whole number or [", &v) || !parse_room(p, 1, sizeof v)) return false;
      ((int64_t *)p->list)[0] = v;
      n = 1;
    }
    ir_kernel_plan(p->g, kernel, entry, p->list, (uint32_t)n);
    if (p->g->error.status) return parse_refused(p, at);
  }
  return true;
}

static bool kernel(parser *p) {
  ir_graph *g = p->g;
  const char *text;
  if (!parse_grow(p, &p->kernels, p->n_kernels, &p->cap_kernels, sizeof *p->kernels)) return false;
  kernel_text *k = &p->kernels[p->n_kernels];
  if (!parse_need(p, "@") || !parse_name(p, "the name of a kernel", &text)) return false;
  if (!(k->region = ir_kernel_add(g, text))) return parse_refused(p, p->at);
  if (!parse_need(p, "(") || !skip_refs(p, &k->arguments) || !parse_need(p, ")") || !parse_need(p, "->")
      || !skip_refs(p, &k->results) || !plan(p, k->region) || !parse_need(p, "{")) return false;
  g->at_region = k->region;
  k->begin = g->n_nodes;
  while (!parse_take(p, "}")) {
    if (!parse_next_is(p, "%")) EXPECTED(p->at, "a row or } of kernel @%.60s, found %s", text, FOUND(p->at));
    if (!row(p)) return false;
  }
  g->at_region = 0;
  k->end = g->n_nodes;
  p->n_kernels++;
  return true;
}

/* The next name of a list of kernel k must be r's. */
static bool ref_is(parser *p, const kernel_text *k, const char *what, bool first, ir_ref r) {
  const char *kernel_name = p->g->kernels[k->region].name;
  ir_ref is = 0;
  uint64_t key;
  const char *text;
  char label[180];
  if (!first && !parse_take(p, ","))
    EXPECTED(p->at, "%s, the next %s of kernel @%.60s, found %s", parse_found(p, p->defined[r], label, sizeof label), what, kernel_name, FOUND(p->at));
  parse_space(p);
  size_t at = p->at;
  if (parse_next_is(p, "%")) {
    if (!parse_key(p, &key, &text)) return false;
    is = parse_lookup(p, key);
  }
  if (is != r) EXPECTED(at, "%s, the next %s of kernel @%.60s, found %s", parse_found(p, p->defined[r], label, sizeof label), what, kernel_name, FOUND(at));
  return true;
}

static bool refs_end(parser *p, const kernel_text *k, const char *what, const char *mark) {
  if (parse_next_is(p, mark)) return true;
  EXPECTED(p->at, "%s: there is no further %s of kernel @%.60s, found %s", mark, what, p->g->kernels[k->region].name, FOUND(p->at));
}

static bool check_kernels(parser *p) {
  ir_graph *g = p->g;
  uint32_t *run = calloc(g->n_nodes, sizeof *run), *seen = calloc(g->n_nodes, sizeof *seen);
  bool *result = calloc(g->n_nodes, sizeof *result), ok = run && seen && result;
  if (!ok) parse_no_memory(p);
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) run[r] = ir_at(g, r)->region;
  if (ok) text_mark_results(g, NULL, run, result);
  for (uint32_t i = 0; ok && i < p->n_kernels; i++) {
    const kernel_text *k = &p->kernels[i];
    bool first = true;
    p->at = k->arguments;
    for (ir_ref r = k->begin; ok && r < k->end; r++)
      for (uint32_t j = 0; ok && j < ir_at(g, r)->n_args; j++)
        if (text_new_argument(run, seen, k->region, ir_at(g, r)->args[j])) ok = ref_is(p, k, "argument", first, ir_at(g, r)->args[j]), first = false;
    ok = ok && refs_end(p, k, "argument", ")");
    first = true;
    p->at = k->results;
    for (ir_ref r = k->begin; ok && r < k->end; r++)
      if (result[r]) ok = ref_is(p, k, "result", first, r), first = false;
    ok = ok && refs_end(p, k, "result", "[");
  }
  free(run), free(seen), free(result);
  return ok;
}

/* ---- the function */

static bool leaf(parser *p, int n) {
  ir_graph *g = p->g;
  parse_space(p);
  size_t start = p->at, at;
  bool state = parse_take(p, "state"), is_param = state || parse_take(p, "param");
  uint64_t key;
  const char *text;
  tt_dtype t;
  tt_shape s;
  if (!parse_next_is(p, "%")) EXPECTED(p->at, "an argument: %%name: type, param %%name: type or state %%name: type, found %s", FOUND(p->at));
  if (n >= MAX_LEAVES) EXPECTED(start, "at most %d arguments, found %s", MAX_LEAVES, FOUND(start));
  if (!parse_new_name(p, &key, &text, &at)) return false;
  if (!text) EXPECTED(at, "a name for the argument (a number in quotes, if need be), found %s", FOUND(at));
  if (!parse_need(p, ":") || !parse_type(p, &t, &s)) return false;
  int64_t words[TT_MAX_RANK + 4] = {t, s.rank};
  uint32_t n_words = 2;
  for (int i = 0; i < s.rank; i++) words[n_words++] = s.dim[i];
  words[n_words++] = (int64_t)(intptr_t)text;
  if (is_param) words[n_words++] = !state;
  ir_ref r = ir_emit(g, is_param ? IR_param : IR_input, NULL, 0, words, n_words);
  return r ? parse_define(p, key, r, at) : parse_refused(p, start);
}

static bool returns(parser *p) {
  for (int i = 0; !parse_next_is(p, "}"); i++) {
    const char *text = NULL;
    ir_ref r;
    if (i && !parse_need(p, ",")) return false;
    if (!parse_next_is(p, "%") && (!parse_name(p, "%name, name=%name or }", &text) || !parse_need(p, "="))) return false;
    if (!parse_reference(p, &r)) return false;
    ir_output_add(p->g, text, r);
    if (p->g->error.status) return parse_refused(p, p->at);
  }
  p->at++;
  return true;
}

/* The types after -> are those of the outputs. */
static bool check_types(parser *p, size_t at, uint32_t n) {
  const ir_graph *g = p->g;
  if (n != g->n_outputs) EXPECTED(at, "%u type%s, as many as return has values, found %u", g->n_outputs, g->n_outputs == 1 ? "" : "s", n);
  p->at = at;
  for (uint32_t i = 0; i < n; i++) {
    ir_ref r = g->outputs[i].value;
    tt_dtype t;
    tt_shape s, is = ir_shape(g, r);
    char has[256], says[256];
    if (i && !parse_need(p, ",")) return false;
    parse_space(p);
    size_t type_at = p->at;
    if (!parse_type(p, &t, &s)) return false;
    if (t != ir_at(g, r)->dtype || !tt_shape_equal(&s, &is))
      EXPECTED(type_at, "%s, the type of output %u, found %s", tt_type_text((tt_dtype)ir_at(g, r)->dtype, &is, has, sizeof has), i,
               tt_type_text(t, &s, says, sizeof says));
  }
  return true;
}

static bool assign(parser *p) {
  ir_graph *g = p->g;
  ir_ref args[2];
  uint32_t origin;
  size_t at = p->at - strlen("assign");
  if (!parse_need(p, "(") || !parse_reference(p, &args[0]) || !parse_need(p, ",")
      || !parse_reference(p, &args[1]) || !parse_need(p, ")") || !parse_origins(p, &origin)) return false;
  g->at_origin = origin;
  ir_ref r = ir_emit(g, IR_assign, args, 2, NULL, 0);
  g->at_origin = 0;
  return r || parse_refused(p, at);
}

static bool function(parser *p) {
  ir_graph *g = p->g;
  tt_dtype t;
  tt_shape s;
  uint32_t n_types = 0;
  bool assigns = false;
  if (!parse_need(p, "func") || !parse_need(p, "@") || !parse_name(p, "the name of the function", &g->name) || !parse_need(p, "(")) return false;
  for (int i = 0; !parse_take(p, ")"); i++)
    if ((i && !parse_need(p, ",")) || !leaf(p, i)) return false;
  if (!parse_need(p, "->")) return false;
  parse_space(p);
  size_t types = p->at;
  if (parse_take(p, "(")) {
    if (!parse_need(p, ")")) return false;
  } else
    do {
      if (!parse_type(p, &t, &s)) return false;
      n_types++;
    } while (parse_take(p, ","));
  if (parse_take(p, "arena")) {
    if (!parse_need(p, "=")) return false;
    parse_space(p);
    size_t at = p->at;
    if (!parse_integer(p, "the arena's size in bytes", &g->arena_bytes)) return false;
    if (g->arena_bytes < 0) EXPECTED(at, "a size of 0 or more, found %s", FOUND(at));
  }
  if (!parse_need(p, "{")) return false;
  while (!parse_take(p, "return")) {
    if (parse_take(p, "assign")) {
      if (!assign(p)) return false;
      assigns = true;
    } else if (assigns) EXPECTED(p->at, "assign or return, found %s", FOUND(p->at));
    else if (parse_take(p, "kernel")) {
      if (!kernel(p)) return false;
    } else if (parse_next_is(p, "%")) {
      if (!row(p)) return false;
    } else EXPECTED(p->at, "a row, kernel, assign or return, found %s", FOUND(p->at));
  }
  if (!returns(p)) return false;
  size_t end = p->at;
  if (!check_types(p, types, n_types) || !check_kernels(p)) return false;
  p->at = end;
  return true;
}

/* Functions up to the last, which is the graph. Names of rows are each function's own. */
static bool module(parser *p) {
  for (;;) {
    p->g->plain = true;
    bool ok = function(p);
    p->g->plain = false;
    if (!ok) return false;
    parse_space(p);
    if (p->at == p->n) return true;
    if (!parse_next_is(p, "func")) EXPECTED(p->at, "a function or the end of the text, found %s", FOUND(p->at));
    for (uint32_t i = 0; i < p->n_functions; i++)
      if (!strcmp(p->functions[i]->name, p->g->name)) EXPECTED(p->at, "functions of different names, found two called %.60s", p->g->name);
    if (!parse_grow(p, &p->functions, p->n_functions, &p->cap_functions, sizeof *p->functions)) return false;
    p->g->holders++;
    p->functions[p->n_functions++] = p->g;
    if (!(p->g = ir_graph_new(""))) return parse_no_memory(p);
    free(p->keys), free(p->values);
    p->keys = NULL, p->values = NULL, p->n_keys = p->cap_keys = p->n_kernels = 0;
  }
}

ir_graph *ir_parse(const char *text, size_t length, const char *file, tt_error *err) {
  tt_error own = {0};
  parser p = {.text = text, .file = file ? file : "text", .n = length, .err = err ? err : &own};
  if (length > 1u << 30) return parse_wrong(&p, 0, "expected a text of at most 1 GiB, found %zu bytes", length), NULL;
  p.g = ir_graph_new("");
  locale_t c = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0), before = c ? uselocale(c) : (locale_t)0;      /* 0.5, never 0,5 */
  bool ok = p.g && c ? true : parse_no_memory(&p);
  ok = ok && module(&p);
  if (c) uselocale(before), freelocale(c);
  free(p.keys), free(p.values), free(p.defined), free(p.kernels), free(p.args), free(p.list);
  for (uint32_t i = 0; i < p.n_functions; i++) ir_graph_free(p.functions[i]);
  free(p.functions);
  if (!ok) ir_graph_free(p.g), p.g = NULL;
  return p.g;
}
