/* generate.c: a text grows token by token. One program takes a chunk of TT_GENERATE_CHUNK tokens, the other one token, both at a position that is an input; they share the
 * model's parameters and one set of caches, which are states of the graph. A chunk that is not full is padded: what stands behind the live tokens is seen by none of them (attention
 * is causal) and overwritten by what comes later. Near the capacity, where a padded chunk would not fit, tokens go one by one.
 *
 * A text that grows past the capacity begins anew: its last half is taken as a prompt is. Moving the caches on would be wrong: what they hold was computed with the position that each
 * token had, and of tokens that are gone. So every token has the logits that the whole model gives to the live tokens, and one of them costs 1 / capacity of a prefill of half of it. */
#include "frontend.h"

#define CACHE ".cache"

typedef struct { rt_program *program; rt_instance *instance; tt_tensor *tokens, *position, *logits; int64_t rows; } part;

struct tt_generator {
  tt_model *m;
  rt_params *caches;
  part chunk, one;
  int32_t *text;                   /* the live tokens */
  int64_t capacity, length, classes;
};

tt_val tt_position(tt_val x) { return x.trace ? x.trace->position : (tt_val){0}; }

tt_val tt_cached_at(tt_here here, tt_val x, const char *name, int axis, int64_t capacity) {
  OPEN("cached", here, x);
  AXIS(i, axis, x);
  tt_trace *t = call.t;
  if (!trace_is(t->position)) WRONG("ask tt_position first, and use x itself where there is none", "nothing is being generated");
  tt_shape s = tt_shape_of(x);
  if (capacity < s.dim[i]) WRONG("give a larger capacity", "a cache of %lld entries does not hold %lld", (long long)capacity, (long long)s.dim[i]);
  s.dim[i] = capacity;
  char full[768];
  snprintf(full, sizeof full, "%s%s%s" CACHE, t->scope, t->scope[0] ? "." : "", name);
  for (char *c = full; *c; c++)
    if (*c == '/') *c = '.';
  if (ir_find(g, full)) WRONG("give each cache a name of its own", "the name \"%s\" is taken", full);
  tt_val cache = {t, ir_param(g, full, tt_dtype_of(x), s, false)};
  tt_val now = tt_dynamic_update_slice(cache, i, t->position, x);
  if (tt_ok(now)) ir_assign(g, cache.ref, now.ref);
  if (!t->capacity || capacity < t->capacity) t->capacity = capacity;
  DONE(now.ref);
}

static void part_free(part *p) {
  rt_instance_free(p->instance);
  rt_program_free(p->program);
  tt_tensor_free(p->tokens);
  tt_tensor_free(p->position);
  *p = (part){0};
}

void tt_generator_free(tt_generator *g) {
  if (!g) return;
  part_free(&g->chunk);
  part_free(&g->one);
  rt_params_free(g->caches);
  free(g->text);
  free(g);
}

/* Parameters are the model's; what it has not is a cache, which starts as zeros. */
static tt_status bind_params(tt_generator *g, part *p, tt_error *err) {
  for (uint32_t i = 0; i < p->program->n_slots; i++) {
    const rt_slot *s = &p->program->slots[i];
    if (s->kind != RT_PARAM) continue;
    rt_param *q = rt_params_find(tt_model_params(g->m), s->name);
    if (!q) q = rt_params_find(g->caches, s->name);
    if (!q) {
      tt_tensor *x = tt_tensor_new(s->dtype, &s->shape, err);
      if (!x || rt_params_add(g->caches, s->name, x, false, true, err) != TT_OK) return err->status;
      q = rt_params_find(g->caches, s->name);
    }
    if (rt_bind_slot(p->instance, (int)i, q->tensor, err) != TT_OK) return err->status;
  }
  return TT_OK;
}

static tt_status part_make(tt_generator *g, part *p, int64_t rows, tt_error *err) {
  ir_graph *graph;
  int64_t capacity;
  if (model_trace_rows(g->m, rows, &graph, &capacity, err) != TT_OK) return err->status;
  model_compile_graph(g->m, graph, &p->program, err);
  ir_graph_free(graph);
  rt_team *team = err->status == TT_OK ? tt_model_team(g->m, err) : NULL;
  if (!team) return err->status;
  g->capacity = capacity, p->rows = rows;
  tt_shape row = TT_SHAPE(1, rows), scalar = TT_SCALAR;
  p->tokens = tt_tensor_new(TT_I32, &row, err);
  p->position = tt_tensor_new(TT_I64, &scalar, err);
  p->instance = rt_instance_new(p->program, team, err);
  if (!p->tokens || !p->position || !p->instance || bind_params(g, p, err) != TT_OK) return err->status;
  if (rt_bind(p->instance, "x", p->tokens, err) != TT_OK || rt_bind(p->instance, "position", p->position, err) != TT_OK || rt_bind_seed(p->instance, 0, 0, err) != TT_OK) return err->status;
  p->logits = rt_bound(p->instance, "logits");
  tt_shape s = p->logits ? tt_tensor_shape(p->logits) : scalar;
  if (s.rank != 3 || s.dim[1] != rows || tt_tensor_dtype(p->logits) != TT_F32)
    return tt_fail(err, TT_INVALID, "error: %s gives no logits f32 [1,T,classes]\n  at tt_generator_new\n  fix: give what follows each token", model_target_of(g->m).name);
  g->classes = s.dim[2];
  return TT_OK;
}

tt_generator *tt_generator_new(tt_model *m, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  tt_generator *g = calloc(1, sizeof *g);
  if (g) g->m = m, g->caches = rt_params_new();
  if (!g || !g->caches) tt_fail(err, TT_NO_MEMORY, "error: no memory for a generator\n  at tt_generator_new\n  fix: free memory");
  else if (part_make(g, &g->one, 1, err) == TT_OK && (g->capacity < TT_GENERATE_CHUNK || part_make(g, &g->chunk, TT_GENERATE_CHUNK, err) == TT_OK)) {
    if ((g->text = malloc((size_t)g->capacity * sizeof *g->text))) return g;
    tt_fail(err, TT_NO_MEMORY, "error: no memory for a text of %lld tokens\n  at tt_generator_new\n  fix: free memory", (long long)g->capacity);
  }
  tt_generator_free(g);
  return NULL;
}

int64_t tt_generator_capacity(const tt_generator *g) { return g->capacity; }
int64_t tt_generator_length(const tt_generator *g) { return g->length; }
void tt_generator_reset(tt_generator *g) { g->length = 0; }
void tt_generator_rewind(tt_generator *g, int64_t n) { g->length = n < 0 ? 0 : n < g->length ? n : g->length; }

tt_status tt_generator_feed(tt_generator *g, const int32_t *tokens, int64_t n, const float **logits, int64_t *classes, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  if (n < 1) return tt_fail(err, TT_INVALID, "error: no tokens to go on from\n  at tt_generator_feed\n  fix: give a prompt of at least one token");
  if (n > g->capacity - g->length)
    return tt_fail(err, TT_INVALID, "error: %lld tokens and %lld more do not fit into the model's context of %lld\n  at tt_generator_feed\n  fix: give a shorter prompt", (long long)g->length, (long long)n, (long long)g->capacity);
  for (int64_t i = 0; i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= g->classes)
      return tt_fail(err, TT_INVALID, "error: token %d is outside of the vocabulary of %lld\n  at tt_generator_feed, token %lld\n  fix: use the tokenizer that the model was trained with", tokens[i], (long long)g->classes, (long long)i);
  int64_t length = g->length;
  for (int64_t done = 0; done < n;) {
    bool whole = g->chunk.program && n - done > 1 && length + g->chunk.rows <= g->capacity;
    part *p = whole ? &g->chunk : &g->one;
    int64_t live = p->rows < n - done ? p->rows : n - done;
    int32_t *to = tt_tensor_data(p->tokens);
    for (int64_t i = 0; i < p->rows; i++) to[i] = i < live ? tokens[done + i] : 0;
    *(int64_t *)tt_tensor_data(p->position) = length;
    if (rt_run(p->instance, err) != TT_OK) return err->status;
    done += live, length += live;
    *logits = (const float *)tt_tensor_data(p->logits) + (live - 1) * g->classes;
  }
  *classes = g->classes;
  memmove(g->text + g->length, tokens, (size_t)n * sizeof *tokens);
  g->length = length;
  return TT_OK;
}

/* One more token, which may be the first that does not fit: then the second half of the text, and it, are a new one. */
static tt_status feed_on(tt_generator *g, int32_t id, const float **logits, int64_t *classes, tt_error *err) {
  if (g->length < g->capacity) return tt_generator_feed(g, &id, 1, logits, classes, err);
  int64_t kept = g->capacity > 1 ? g->capacity / 2 : 1;
  memmove(g->text, g->text + g->capacity - (kept - 1), (size_t)(kept - 1) * sizeof *g->text);
  g->text[kept - 1] = id;
  g->length = 0;
  return tt_generator_feed(g, g->text, kept, logits, classes, err);
}

/* -- Sampling ----------------------------------------------------------------------------------------------------------- */

typedef struct { double p; float logit; int32_t id; } choice;

static bool likelier(const choice *a, const choice *b) { return a->logit != b->logit ? a->logit > b->logit : a->id < b->id; }

/* Place i of a heap of n whose first is the likeliest, or (least) the least likely. */
static void sift(choice *heap, int64_t n, int64_t i, bool least) {
  choice x = heap[i];
  for (int64_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && likelier(&heap[child + 1], &heap[child]) != least) child++;
    if (likelier(&heap[child], &x) == least) break;
    heap[i] = heap[child];
  }
  heap[i] = x;
}
static void heapify(choice *heap, int64_t n, bool least) {
  for (int64_t i = n / 2; i-- > 0;) sift(heap, n, i, least);
}

/* The k likeliest are kept in a heap whose first the next one must beat; the likeliest of these come from another one, one by one, until they reach top_p: nobody sorts a vocabulary. */
int32_t tt_sample_token(const float *logits, int64_t classes, const tt_generate_options *o, int64_t place) {
  int32_t best = 0;
  for (int64_t i = 1; i < classes; i++)
    if (logits[i] > logits[best]) best = (int32_t)i;
  if (!(o->temperature > 0)) return best;
  bool nucleus = o->top_p > 0 && o->top_p < 1, some = o->top_k > 0 && o->top_k < classes;
  int64_t n = some ? o->top_k : classes, sorted = 0;
  choice *c = malloc(sizeof *c * (size_t)n);
  if (!c) return -1;
  for (int64_t i = 0; i < n; i++) c[i] = (choice){0, logits[i], (int32_t)i};
  if (some) heapify(c, n, true);
  for (int64_t i = n; i < classes; i++)
    if (logits[i] > c[0].logit) c[0] = (choice){0, logits[i], (int32_t)i}, sift(c, n, 0, true);
  double all = 0, sum = 0;
  for (int64_t i = 0; i < n; i++) all += c[i].p = exp(((double)logits[c[i].id] - (double)logits[best]) / o->temperature);
  if (nucleus || some) {
    double enough = nucleus ? o->top_p * all : INFINITY;
    heapify(c, n, false);
    for (; sorted < n && sum < enough; sorted++) {       /* to the end of what is still a heap */
      choice first = c[0];
      c[0] = c[n - 1 - sorted], c[n - 1 - sorted] = first;
      sift(c, n - 1 - sorted, 0, false);
      sum += first.p;
    }
    all = sum;
  }
  double at = (tt_random_word(o->seed, (uint64_t)place, 0, 0) + 0.5) / 4294967296.0 * all;
  int64_t left = sorted ? sorted : n, i = sorted ? n - 1 : 0, step = sorted ? -1 : 1;
  for (sum = c[i].p; --left > 0 && sum <= at; sum += c[i].p) i += step;
  int32_t id = c[i].id;
  free(c);
  return id;
}

/* Logits of which one can be chosen: no NaN or +inf, not all -inf. */
static tt_status sound(const float *logits, int64_t classes, tt_error *err) {
  bool any = false;
  for (int64_t i = 0; i < classes; i++) {
    if (!(logits[i] < INFINITY)) return tt_fail(err, TT_INVALID, "error: the model gives token %lld the logit %g\n  at tt_generate\n  fix: take weights from before training diverged", (long long)i, (double)logits[i]);
    any |= logits[i] > -INFINITY;
  }
  return any ? TT_OK : tt_fail(err, TT_INVALID, "error: the model gives every token the logit -inf\n  at tt_generate\n  fix: take weights from before training diverged");
}

tt_status tt_generate(tt_generator *g, const int32_t *prompt, int64_t n, const tt_generate_options *o, int64_t *made, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  if (made) *made = 0;
  if (!(o->temperature >= 0) || o->temperature > 1e30 || o->top_k < 0 || !(o->top_p >= 0 && o->top_p <= 1) || o->max_new_tokens < 0)
    return tt_fail(err, TT_INVALID, "error: temperature %g, top_k %lld, top_p %g or max_new_tokens %lld is out of range\n  at tt_generate\n  fix: give numbers of at least 0, and top_p of at most 1", o->temperature,
                   (long long)o->top_k, o->top_p, (long long)o->max_new_tokens);
  const float *logits;
  int64_t classes, before = g->length;
  tt_status status = tt_generator_feed(g, prompt, n, &logits, &classes, err);
  for (int64_t i = 0; status == TT_OK && (status = sound(logits, classes, err)) == TT_OK; i++) {
    int32_t id = tt_sample_token(logits, classes, o, before + n + i);
    if (id < 0) return tt_fail(err, TT_NO_MEMORY, "error: no memory to choose one of %lld tokens\n  at tt_generate\n  fix: free memory", (long long)classes);
    if (made) *made = i + 1;
    if (o->token && !o->token(o->user, id)) break;
    if (o->max_new_tokens ? i + 1 == o->max_new_tokens : g->length == g->capacity) break;
    status = feed_on(g, id, &logits, &classes, err);
  }
  return status;
}
