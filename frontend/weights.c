/* weights.c: a file that a model's parameters come from. Its tensors are called as the model's parameters are, or as a checkpoint published elsewhere calls them: a table of names
 * (tt_weight_name) says how, and which matrices stand transposed there.
 *
 *     {"blocks.*.qkv.weight", "h.*.attn.c_attn.weight", .transposed = true}        blocks.3.qkv.weight f32[2304,768] is transformer.h.3.attn.c_attn.weight f32[768,2304]
 *
 * What stands before all published names ("transformer.") is found in the file. */
#include "frontend.h"

struct weights_file { tt_safetensors *file; char *path; const tt_weight_name *names; char prefix[200]; bool averages; };

static int find(const tt_safetensors *f, const char *name) {
  int n = tt_safetensors_count(f), i = 0;
  while (i < n && strcmp(tt_safetensors_name(f, i), name)) i++;
  return i < n ? i : -1;
}

/* Whether the name is the pattern; *star, of *length: what its first * stands for. */
static bool matches(const char *pattern, const char *name, const char **star, int *length) {
  const char *at = strchr(pattern, '*');
  size_t before = at ? (size_t)(at - pattern) : strlen(pattern), n = strlen(name), behind = at ? strlen(at + 1) : 0;
  if (!at) return !strcmp(pattern, name);
  if (n <= before + behind || strncmp(pattern, name, before) || strcmp(name + n - behind, at + 1)) return false;
  *star = name + before, *length = (int)(n - before - behind);
  return true;
}

const tt_weight_name *weights_published(const tt_weight_name *names, const char *name, char *to, size_t size) {
  const char *star = "";
  int length = 0;
  for (const tt_weight_name *row = names; row && row->name; row++) {
    if (row->tied || !matches(row->name, name, &star, &length)) continue;
    const char *at = strchr(row->published, '*');
    int n = at ? snprintf(to, size, "%.*s%.*s%s", (int)(at - row->published), row->published, length, star, at + 1) : snprintf(to, size, "%s", row->published);
    return n < (int)size ? row : NULL;
  }
  return NULL;
}

/* What the file puts before the name of the first row whose tensor it has; "" is found first. */
static void find_prefix(weights_file *w) {
  char name[300];
  for (const tt_weight_name *row = w->names; row && row->name; row++) {
    const char *at = strchr(row->published, '*');
    snprintf(name, sizeof name, at ? "%.*s0%s" : "%.*s", at ? (int)(at - row->published) : (int)strlen(row->published), row->published, at ? at + 1 : "");
    if (find(w->file, name) >= 0) return;
    for (int i = 0; i < tt_safetensors_count(w->file); i++) {
      const char *whole = tt_safetensors_name(w->file, i);
      size_t n = strlen(whole), m = strlen(name);
      if (n <= m + 1 || whole[n - m - 1] != '.' || strcmp(whole + n - m, name) || n - m >= sizeof w->prefix) continue;
      snprintf(w->prefix, sizeof w->prefix, "%.*s", (int)(n - m), whole);
      return;
    }
  }
}

static bool equal(tt_safetensors *f, const char *a, const char *b, tt_error *err) {
  tt_tensor *x = tt_safetensors_get(f, a, err), *y = tt_safetensors_get(f, b, err);
  tt_shape s = x ? tt_tensor_shape(x) : TT_SCALAR, u = y ? tt_tensor_shape(y) : TT_SCALAR;
  bool same = x && y && tt_tensor_dtype(x) == tt_tensor_dtype(y) && tt_shape_equal(&s, &u) && !memcmp(tt_tensor_data(x), tt_tensor_data(y), (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(x)));
  tt_tensor_free(x);
  tt_tensor_free(y);
  return same;
}

/* A tensor that the model has no parameter for, because it is another one's once more, is that one. */
static bool ties_hold(weights_file *w, tt_error *err) {
  char with[500], of[500], name[300];
  for (const tt_weight_name *row = w->names; row && row->name; row++) {
    if (!row->tied || !weights_published(w->names, row->name, name, sizeof name)) continue;
    snprintf(with, sizeof with, "%s%s", w->prefix, row->published);
    const char *have = find(w->file, row->published) >= 0 ? row->published : with;
    snprintf(of, sizeof of, "%s%s", w->prefix, name);
    if (find(w->file, have) < 0 || find(w->file, of) < 0 || equal(w->file, have, of, err)) continue;
    tt_fail(err, TT_INVALID, "error: \"%s\" is not the same as \"%s\" in the weights, but the model has one parameter for both\n  at %s\n  fix: load a checkpoint in which they are tied", have, of, w->path);
    return false;
  }
  return true;
}

weights_file *weights_open(const char *path, const tt_weight_name *names, bool averages, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  weights_file *w = calloc(1, sizeof *w);
  if (!w || !(w->path = strdup(path))) tt_fail(err, TT_NO_MEMORY, "error: no memory for weights\n  at %s\n  fix: free memory", path);
  else if ((w->file = tt_safetensors_open(path, err))) {
    const char *step = tt_safetensors_metadata(w->file, "tinytorch.step");
    w->averages = averages && !(step && !strcmp(step, "0"));        /* before the first step there are none yet */
    w->names = names;
    find_prefix(w);
    if (ties_hold(w, err)) return w;
  }
  weights_close(w);
  return NULL;
}

void weights_close(weights_file *w) {
  if (!w) return;
  tt_safetensors_close(w->file);
  free(w->path);
  free(w);
}

/* x [in,out], which is freed, as [out,in]. */
static tt_tensor *turned(tt_tensor *x, tt_error *err) {
  tt_tensor *view = tt_tensor_permute(x, (int[]){1, 0}, err), *y = view ? tt_tensor_dense(view, err) : NULL;
  tt_tensor_free(view);
  tt_tensor_free(x);
  return y;
}

tt_tensor *weights_read(weights_file *w, const char *name, tt_dtype t, const tt_shape *s, tt_error *err) {
  char published[300], full[520], want[120], have[120], average[520];
  const char *called = name;
  const tt_weight_name *row = find(w->file, name) < 0 ? weights_published(w->names, name, published, sizeof published) : NULL;
  if (row) snprintf(full, sizeof full, "%s%s", w->prefix, published), called = full;
  if (w->averages && !row && snprintf(average, sizeof average, "%s.ema", name) < (int)sizeof average && find(w->file, average) >= 0) called = average;
  if (find(w->file, called) < 0) {
    tt_fail(err, TT_INVALID, "error: the weights have no tensor \"%s\"%s%s%s\n  at %s\n  fix: load weights that were saved from this model%s", name, row ? ", nor \"" : "", row ? full : "", row ? "\"" : "", w->path, row ? ", or a published checkpoint of it" : "");
    return NULL;
  }
  tt_tensor *x = tt_safetensors_get(w->file, called, err), *y = NULL;
  if (!x) return NULL;
  tt_shape got = tt_tensor_shape(x), wanted = *s;
  bool turn = row && row->transposed && s->rank == 2;
  if (turn) wanted.dim[0] = s->dim[1], wanted.dim[1] = s->dim[0];
  if (!tt_shape_equal(&got, &wanted))
    tt_fail(err, TT_INVALID, "error: \"%s\" is %s in the weights, but the model has %s\n  at %s\n  fix: load weights that were saved from this model", called, tt_type_text(tt_tensor_dtype(x), &got, have, sizeof have),
            tt_type_text(t, &wanted, want, sizeof want), w->path);
  else if (!turn || (x = turned(x, err))) y = tt_tensor_cast(x, t, err);
  tt_tensor_free(x);
  return y;
}

/* -- Writing ------------------------------------------------------------------------------------------------------------- */

tt_status tt_model_save_published(tt_model *m, const tt_weight_name *names, const char *path, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  rt_params *params = tt_model_params(m);
  int n = rt_params_count(params), used = 0;
  if (!n) return tt_fail(err, TT_INVALID, "error: the model has no parameters yet\n  at tt_model_save_published to %s\n  fix: train it or predict with it first", path);
  tt_named_tensor *list = calloc((size_t)n, sizeof *list);
  char (*called)[300] = calloc((size_t)n, sizeof *called);
  if (!list || !called) tt_fail(err, TT_NO_MEMORY, "error: no memory for %d names\n  at tt_model_save_published\n  fix: free memory", n);
  for (int i = 0; i < n && err->status == TT_OK; i++) {
    const rt_param *p = rt_params_at(params, i);
    if (p->optimizer_state) continue;
    const tt_weight_name *row = weights_published(names, p->name, called[used], sizeof *called);
    tt_tensor *x = row ? tt_tensor_retain(p->tensor) : NULL;
    if (!row) tt_fail(err, TT_INVALID, "error: the parameter \"%s\" has no published name\n  at tt_model_save_published to %s\n  fix: give the names of this model, or save it with tt_model_save", p->name, path);
    if (row && row->transposed && tt_tensor_shape(x).rank == 2) x = turned(x, err);
    if (x) list[used] = (tt_named_tensor){called[used], x}, used++;
  }
  if (err->status == TT_OK) tt_safetensors_save(path, list, used, &(tt_metadata){"format", "pt"}, 1, err);
  for (int i = 0; i < used; i++) tt_tensor_free(list[i].tensor);
  free(list), free(called);
  return err->status;
}
