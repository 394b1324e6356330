/* attrs.c: attributes of a row by name. They are words in the order of the op's row in ops.def (see ir_node). */
#include "ir.h"

#include <assert.h>
#include <string.h>

/* First word of the attribute, or NULL. */
static const int64_t *find(const ir_node *n, const char *name, int *kind) {
  const int64_t *w = n->words;
  for (int i = 0; i < 8 && ir_ops[n->op].attrs[i].kind != IR_ATTR_END; i++) {
    *kind = ir_ops[n->op].attrs[i].kind;
    const char *own = ir_ops[n->op].attrs[i].name;           /* mostly one text for the linker */
    if (own == name || !strcmp(own, name)) return w;
    w += *kind == IR_ATTR_INTS ? 1 + w[0] : 1;
  }
  assert(!"no such attribute");
  return NULL;
}

int64_t ir_int(const ir_node *n, const char *name) {
  int kind = 0;
  const int64_t *w = find(n, name, &kind);
  assert(!w || kind == IR_ATTR_INT || kind == IR_ATTR_TYPE || kind == IR_ATTR_DATA || kind == IR_ATTR_FUNC);
  return w ? *w : 0;
}

double ir_float(const ir_node *n, const char *name) {
  int kind = 0;
  const int64_t *w = find(n, name, &kind);
  assert(!w || kind == IR_ATTR_FLOAT);
  double v = 0;
  if (w) memcpy(&v, w, sizeof v);
  return v;
}

const int64_t *ir_ints(const ir_node *n, const char *name, int *count) {
  int kind = 0;
  const int64_t *w = find(n, name, &kind);
  assert(!w || kind == IR_ATTR_INTS);
  if (count) *count = w ? (int)w[0] : 0;
  return w ? w + 1 : NULL;
}

const char *ir_str(const ir_node *n, const char *name) {
  int kind = 0;
  const int64_t *w = find(n, name, &kind);
  assert(!w || kind == IR_ATTR_STR);
  return w ? (const char *)(intptr_t)*w : NULL;
}

bool ir_words_ok(const ir_graph *g, ir_op op, const int64_t *words, uint32_t n_words) {
  uint32_t at = 0;
  for (int i = 0; i < 8 && ir_ops[op].attrs[i].kind != IR_ATTR_END; i++) {
    if (at >= n_words) return false;
    int64_t w = words[at++];
    switch (ir_ops[op].attrs[i].kind) {
    case IR_ATTR_INTS:
      if (w < 0 || w > TT_MAX_RANK || (uint64_t)w > n_words - at) return false;
      at += (uint32_t)w;
      break;
    case IR_ATTR_TYPE: if (w < 0 || w >= TT_N_DTYPES) return false; break;
    case IR_ATTR_STR: if (!w) return false; break;
    case IR_ATTR_DATA: if (w < 0 || w >= g->n_blobs) return false; break;
    case IR_ATTR_FUNC: if (w < 0 || w >= g->n_functions) return false; break;
    default: break;
    }
  }
  return at == n_words;
}
