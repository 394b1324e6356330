/* parse_token.c: a text as tokens: marks, words, quoted texts, numbers, types, names of rows, origins; and messages that say where in the
 * text a mistake is. What is allocated grows with what has been read of the text. */
#include "parse.h"

#include <inttypes.h>
#include <stdio.h>

enum { MAX_NUMBER = 64 };

/* ---- mistakes */

/* "%x", "relu", "end of the line": what stands at `at`. */
const char *parse_found(const parser *p, size_t at, char *to, size_t size) {
  size_t n = 0, end = at;
  if (at >= p->n) return "the end of the text";
  if (p->text[at] == '\n') return "the end of the line";
  if (p->text[end] == '%' || p->text[end] == '@' || p->text[end] == '-') end++;
  while (end < p->n && end - at < 40 && text_is_word_char(p->text[end])) end++;
  if (end == at) end++;
  for (; at < end && n + 5 < size; at++) {
    unsigned char c = (unsigned char)p->text[at];
    n += (size_t)snprintf(to + n, size - n, c < 0x20 || c > 0x7e ? "\\x%02x" : "%c", c);
  }
  return to;
}

/* Records "file:line:column: ..." for the place `at`; returns false. */
bool parse_wrong(parser *p, size_t at, const char *format, ...) {
  char what[1700];
  va_list list;
  va_start(list, format);
  vsnprintf(what, sizeof what, format, list);
  va_end(list);
  size_t line = 1, column = 1;
  for (size_t i = 0; i < at && i < p->n; i++) {
    column++;
    if (p->text[i] == '\n') line++, column = 1;
  }
  tt_fail(p->err, TT_FORMAT, "%.200s:%zu:%zu: %s", p->file, line, column, what);
  return false;
}

bool parse_no_memory(parser *p) {
  tt_fail(p->err, TT_NO_MEMORY, "%.200s: no memory for a text of %zu bytes", p->file, p->n);
  return false;
}

/* What the graph says of a row, at the row's place. */
bool parse_refused(parser *p, size_t at) {
  const tt_error *e = &p->g->error;
  if (e->status != TT_INVALID) { tt_fail(p->err, e->status ? e->status : TT_NO_MEMORY, "%.200s: %s", p->file, e->status ? e->message : "no memory"); return false; }
  return parse_wrong(p, at, "%s", strncmp(e->message, "error: ", 7) ? e->message : e->message + 7);
}

bool parse_grow(parser *p, void *array, uint32_t n, uint32_t *cap, size_t size) {
  if (n < *cap) return true;
  uint32_t more = *cap ? 2 * *cap : 64;
  void *a = realloc(*(void **)array, more * size);
  if (!a) return parse_no_memory(p);
  *(void **)array = a;
  *cap = more;
  return true;
}

/* The shared list has room for n elements of a size. */
bool parse_room(parser *p, size_t n, size_t size) {
  if (n * size <= p->cap_list) return true;
  size_t cap = 2 * n * size + 1024;
  void *a = realloc(p->list, cap);
  if (!a) return parse_no_memory(p);
  p->list = a;
  p->cap_list = cap;
  return true;
}

/* ---- tokens */

void parse_blanks(parser *p) {
  while (p->at < p->n && (p->text[p->at] == ' ' || p->text[p->at] == '\t' || p->text[p->at] == '\r')) p->at++;
}

/* Past white space, and past lines that start with #. */
void parse_space(parser *p) {
  for (;;) {
    size_t line = p->at;
    while (line > 0 && (p->text[line - 1] == ' ' || p->text[line - 1] == '\t' || p->text[line - 1] == '\r')) line--;
    bool starts = line == 0 || p->text[line - 1] == '\n';
    parse_blanks(p);
    if (p->at < p->n && p->text[p->at] == '\n') p->at++;
    else if (p->at < p->n && p->text[p->at] == '#' && starts)
      while (p->at < p->n && p->text[p->at] != '\n') p->at++;
    else return;
  }
}

bool parse_next_is(parser *p, const char *mark) {
  parse_space(p);
  size_t n = strlen(mark);
  if (p->n - p->at < n || memcmp(p->text + p->at, mark, n)) return false;
  return !(text_is_word_char(mark[n - 1]) && p->at + n < p->n && text_is_word_char(p->text[p->at + n]));
}
bool parse_take(parser *p, const char *mark) {
  if (!parse_next_is(p, mark)) return false;
  p->at += strlen(mark);
  return true;
}
bool parse_need(parser *p, const char *mark) {
  if (parse_take(p, mark)) return true;
  EXPECTED(p->at, "%s, found %s", mark, FOUND(p->at));
}

size_t parse_word(const parser *p) {
  size_t n = 0;
  while (p->at + n < p->n && text_is_word_char(p->text[p->at + n])) n++;
  return n;
}

static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* "text with \" \\ \n \t \x1f", interned. */
bool parse_quoted(parser *p, const char **text) {
  size_t begin = p->at, n = 0;
  if (!parse_room(p, 1, 1)) return false;
  char *s = p->list;
  for (p->at++;; n++) {
    if (p->at >= p->n || p->text[p->at] == '\n') EXPECTED(p->at, "\" to end the text that begins at column %zu, found %s", p->at - begin, FOUND(p->at));
    char c = p->text[p->at++];
    if (c == '"') break;
    if ((unsigned char)c < 0x20 || c == 0x7f) EXPECTED(p->at - 1, "\\n, \\t or \\xHH for a control character, found %s", FOUND(p->at - 1));
    if (c == '\\') {
      size_t escape = p->at - 1;
      c = p->at < p->n ? p->text[p->at++] : 0;
      if (c == 'n') c = '\n';
      else if (c == 't') c = '\t';
      else if (c == 'x') {
        int high = p->n - p->at >= 2 ? hex(p->text[p->at]) : -1, low = high >= 0 ? hex(p->text[p->at + 1]) : -1;
        if (low < 0 || high + low == 0) EXPECTED(escape, "\\xHH with two hexadecimal digits that are not 00, found %s", FOUND(escape + 1));
        c = (char)(high * 16 + low);
        p->at += 2;
      } else if (c != '"' && c != '\\') EXPECTED(escape, "\\\", \\\\, \\n, \\t or \\xHH, found \\%s", FOUND(escape + 1));
    }
    if (!parse_room(p, n + 1, 1)) return false;
    s = p->list;
    s[n] = c;
  }
  *text = ir_intern_n(p->g, s, n);
  return *text || parse_refused(p, begin);
}

/* A word or a quoted text, interned. */
bool parse_name(parser *p, const char *what, const char **text) {
  parse_space(p);
  if (p->at < p->n && p->text[p->at] == '"') return parse_quoted(p, text);
  size_t n = parse_word(p);
  if (!n) EXPECTED(p->at, "%s, found %s", what, FOUND(p->at));
  *text = ir_intern_n(p->g, p->text + p->at, n);
  p->at += n;
  return *text || parse_refused(p, p->at);
}

bool parse_integer(parser *p, const char *what, int64_t *v) {
  parse_space(p);
  size_t i = p->at;
  bool minus = i < p->n && p->text[i] == '-';
  uint64_t u = 0, limit = (uint64_t)INT64_MAX + minus;
  size_t first = i += minus;
  for (; i < p->n && p->text[i] >= '0' && p->text[i] <= '9'; i++) {
    unsigned d = (unsigned)(p->text[i] - '0');
    if (u > (limit - d) / 10) EXPECTED(p->at, "%s of 64 bits, found %s", what, FOUND(p->at));
    u = u * 10 + d;
  }
  if (i == first || (i < p->n && text_is_word_char(p->text[i]))) EXPECTED(p->at, "%s, found %s", what, FOUND(p->at));
  p->at = i;
  *v = minus ? (int64_t)(0 - u) : (int64_t)u;
  return true;
}

/* One element of a type, stored as element i of `to`. */
bool parse_element(parser *p, tt_dtype t, void *to, int64_t i) {
  static const char *const special[] = {"nan", "inf", "-inf"};
  static const double meaning[] = {NAN, INFINITY, -INFINITY};
  parse_space(p);
  size_t at = p->at, n = 0;
  if (tt_dtype_in(t, TT_REAL)) {
    for (int k = 0; k < 3; k++)
      if (parse_take(p, special[k])) return ir_store_double(t, to, i, meaning[k]), true;
    char s[MAX_NUMBER + 1], *end;
    while (at + n < p->n && n < MAX_NUMBER && (text_is_word_char(p->text[at + n]) || p->text[at + n] == '-' || p->text[at + n] == '+')) s[n] = p->text[at + n], n++;
    s[n] = 0;
    double v = strtod(s, &end);
    if (!n || *end || strspn(s, "0123456789+-.eE") != n) EXPECTED(at, "a number of type %s, found %s", tt_dtype_name(t), FOUND(at));
    p->at += n;
    return ir_store_double(t, to, i, v), true;
  }
  int64_t v = 0, again = 0;
  bool large = t == TT_U64 && parse_word(p) > 18;
  if (large) {
    uint64_t u = 0;
    for (n = parse_word(p); n && at < p->at + n; at++) {
      unsigned d = (unsigned)(p->text[at] - '0');
      if (d > 9 || __builtin_mul_overflow(u, 10, &u) || __builtin_add_overflow(u, d, &u)) EXPECTED(p->at, "a number of type u64, found %s", FOUND(p->at));
    }
    p->at = at;
    v = (int64_t)u;
  } else if (!parse_integer(p, "a number", &v)) return false;
  ev_narrow(t, &v, 1, to, i);
  ev_widen(t, to, i, 1, &again);
  if (again != v || (t == TT_U64 && !large && v < 0)) EXPECTED(at, "a number of type %s, found %s", tt_dtype_name(t), FOUND(at));
  return true;
}

/* "[" INT {"," INT} "]" into p->list. */
bool parse_integers(parser *p, size_t *n) {
  if (!parse_need(p, "[")) return false;
  for (*n = 0; !parse_take(p, "]"); ++*n) {
    int64_t v;
    if (*n && !parse_need(p, ",")) return false;
    if (!parse_integer(p, "a whole number", &v) || !parse_room(p, *n + 1, sizeof v)) return false;
    ((int64_t *)p->list)[*n] = v;
  }
  return true;
}

bool parse_type(parser *p, tt_dtype *t, tt_shape *s) {
  parse_space(p);
  size_t at = p->at, n = parse_word(p), rank;
  if (!tt_dtype_parse(p->text + at, n, t)) EXPECTED(at, "a type, say f32[2,3], found %s", FOUND(at));
  p->at += n;
  size_t dims = p->at;
  if (!parse_integers(p, &rank)) return false;
  if (rank > TT_MAX_RANK) EXPECTED(dims, "at most %d dimensions, found %zu", TT_MAX_RANK, rank);
  *s = (tt_shape){.rank = (int)rank};
  for (size_t i = 0; i < rank; i++) {
    s->dim[i] = ((int64_t *)p->list)[i];
    if (s->dim[i] < 0) EXPECTED(dims, "dimensions of 0 or more, found %" PRId64, s->dim[i]);
  }
  return true;
}

/* ---- names of rows */

/* Interned names are 16-byte aligned, so that odd keys are free for numbers. */
bool parse_key(parser *p, uint64_t *key, const char **text) {
  if (!parse_need(p, "%")) return false;
  size_t n = parse_word(p);
  if (!n && !(p->at < p->n && p->text[p->at] == '"')) EXPECTED(p->at, "the name of a row after %%, found %s", FOUND(p->at));
  if (text_is_digits(p->text + p->at, n)) {
    int64_t v;
    *text = NULL;
    if (!parse_integer(p, "a row's number", &v)) return false;
    return *key = (uint64_t)v << 1 | 1, true;
  }
  if (!parse_name(p, "a name", text)) return false;
  return *key = (uint64_t)(uintptr_t)*text, true;
}

static uint32_t slot_of(const parser *p, uint64_t key) {
  uint32_t i = (uint32_t)((key * 0x9E3779B97F4A7C15) >> 32) & (p->cap_keys - 1);
  while (p->values[i] && p->keys[i] != key) i = (i + 1) & (p->cap_keys - 1);
  return i;
}
ir_ref parse_lookup(const parser *p, uint64_t key) { return p->cap_keys ? p->values[slot_of(p, key)] : 0; }

bool parse_define(parser *p, uint64_t key, ir_ref r, size_t at) {
  if (2 * (p->n_keys + 1) > p->cap_keys) {
    parser bigger = {.cap_keys = p->cap_keys ? 2 * p->cap_keys : 64};
    bigger.keys = calloc(bigger.cap_keys, sizeof *bigger.keys);
    bigger.values = calloc(bigger.cap_keys, sizeof *bigger.values);
    if (!bigger.keys || !bigger.values) return free(bigger.keys), free(bigger.values), parse_no_memory(p);
    for (uint32_t i = 0; i < p->cap_keys; i++)
      if (p->values[i]) {
        uint32_t to = slot_of(&bigger, p->keys[i]);
        bigger.keys[to] = p->keys[i], bigger.values[to] = p->values[i];
      }
    free(p->keys), free(p->values);
    p->keys = bigger.keys, p->values = bigger.values, p->cap_keys = bigger.cap_keys;
  }
  uint32_t i = slot_of(p, key);
  p->keys[i] = key, p->values[i] = r, p->n_keys++;
  if (!parse_grow(p, &p->defined, r, &p->cap_defined, sizeof *p->defined)) return false;
  p->defined[r] = at;
  return true;
}

/* The name of a new row; at: where it stands. */
bool parse_new_name(parser *p, uint64_t *key, const char **text, size_t *at) {
  parse_space(p);
  *at = p->at;
  if (!parse_key(p, key, text)) return false;
  if (parse_lookup(p, *key)) EXPECTED(*at, "a name that is not taken, found %s", FOUND(*at));
  return true;
}

bool parse_reference(parser *p, ir_ref *r) {
  uint64_t key;
  const char *text;
  parse_space(p);
  size_t at = p->at;
  if (!parse_key(p, &key, &text)) return false;
  if (!(*r = parse_lookup(p, key))) EXPECTED(at, "a row that is defined above, found %s", FOUND(at));
  return true;
}

/* ---- origins */

/* A file or a scope: to the next blank, ; or :, or quoted. */
static bool path(parser *p, const char *what, const char **text) {
  parse_blanks(p);
  if (p->at < p->n && p->text[p->at] == '"') return parse_quoted(p, text);
  size_t n = 0;
  while (p->at + n < p->n && (unsigned char)p->text[p->at + n] > ' ' && p->text[p->at + n] != 0x7f && !strchr(";:\"\\", p->text[p->at + n])) n++;
  if (!n) EXPECTED(p->at, "%s, found %s", what, FOUND(p->at));
  *text = ir_intern_n(p->g, p->text + p->at, n);
  p->at += n;
  return *text || parse_refused(p, p->at);
}

bool parse_origins(parser *p, uint32_t *origin) {
  ir_graph *g = p->g;
  uint32_t last = 0;
  *origin = 0;
  parse_blanks(p);
  if (p->at >= p->n || p->text[p->at] != '#') return true;
  do {
    const char *file, *scope = NULL;
    int64_t line;
    p->at++;
    if (!path(p, "a file", &file)) return false;
    if (p->at >= p->n || p->text[p->at] != ':') EXPECTED(p->at, ": and a line number after the file, found %s", FOUND(p->at));
    size_t at = ++p->at;
    if (p->at >= p->n || (p->text[at] != '-' && !text_is_digits(p->text + at, 1))) EXPECTED(at, "a line number, found %s", FOUND(at));
    if (!parse_integer(p, "a line number", &line)) return false;
    if (line < INT32_MIN || line > INT32_MAX) EXPECTED(at, "a line number, found %s", FOUND(at));
    parse_blanks(p);
    if (p->at < p->n && p->text[p->at] != ';' && p->text[p->at] != '\n' && !path(p, "a scope", &scope)) return false;
    parse_blanks(p);
    uint32_t cell = ir_origin_add(g, file, (int)line, scope, 0);
    if (!cell) return parse_refused(p, at);
    if (last) g->origins[last].next = cell;
    else *origin = cell;
    last = cell;
  } while (p->at < p->n && p->text[p->at] == ';');
  if (p->at < p->n && p->text[p->at] != '\n') EXPECTED(p->at, "; or the end of the line, found %s", FOUND(p->at));
  return true;
}
