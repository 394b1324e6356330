/* ahead.c: tt_model_export: a model as files that a C program is built from, with libtinytorch_rt and without the compiler. */
#define _GNU_SOURCE                /* open_memstream */
#include "frontend.h"

#include <ctype.h>
#include <errno.h>
#include <sys/stat.h>

#include "../codegen/aot.h"
#include "../ir/ir.h"

enum { MAX_CPUS = 4 };

typedef struct {
  tt_model *m;
  char name[64], upper[64];            /* as a word of C */
  tt_dtype dtype, out_dtype;
  tt_shape x, out;
  tt_labels labels;
  const tt_compile_options *o;
  const char *cpus[MAX_CPUS]; int n_cpus;
  cg_variant variants[MAX_CPUS];
  const char **state; int n_state;
  const char *folder;
  double lr;
  tt_error *err;
} export;

/* native is what this CPU has, so it is the most demanding. */
static int more_demanding(const void *a, const void *b) {
  return cg_cpu_rank(*(const char *const *)b) - cg_cpu_rank(*(const char *const *)a);
}

static tt_status list_cpus(export *e, const char *const *cpus, int n) {
  static const char *const native[] = {"native"};
  if (!cpus || !n) cpus = native, n = 1;
  if (n > MAX_CPUS) return tt_fail(e->err, TT_INVALID, "error: %d CPUs, but at most %d fit into one object\n  at tt_model_export\n  fix: name fewer", n, MAX_CPUS);
  for (int i = 0; i < n; i++) {
    cg_cpu cpu;
    for (int k = 0; k < i; k++)
      if (!strcmp(cpus[i], cpus[k])) return tt_fail(e->err, TT_INVALID, "error: the CPU %s is named twice\n  at tt_model_export\n  fix: name each once", cpus[i]);
    if (cg_cpu_target(cpus[i], &cpu, e->err) != TT_OK) return e->err->status;
    e->cpus[i] = cpus[i];
  }
  qsort(e->cpus, (size_t)n, sizeof *e->cpus, more_demanding);
  e->n_cpus = n;
  return TT_OK;
}

static void word_of(const char *name, char *word, size_t size) {
  size_t n = 0;
  if (!isalpha((unsigned char)name[0])) n += (size_t)snprintf(word, size, "model_");
  for (; *name && n + 1 < size; name++) word[n++] = isalnum((unsigned char)*name) ? *name : '_';
  word[n] = 0;
}

static const char *in_folder(const export *e, const char *file, char *path, size_t size) {
  snprintf(path, size, "%s/%s", e->folder, file);
  return path;
}

/* ---- graphs */

/* What the step keeps beside the model's own parameters. */
static tt_status list_state(export *e, const ir_graph *step) {
  if (!(e->state = calloc(step->n_nodes, sizeof *e->state))) return tt_fail(e->err, TT_NO_MEMORY, "error: no memory for names\n  at tt_model_export\n  fix: free memory");
  for (ir_ref r = 1; r < step->n_nodes; r++)
    if (ir_at(step, r)->op == IR_param && !rt_params_find(tt_model_params(e->m), ir_str(ir_at(step, r), "name"))) e->state[e->n_state++] = ir_str(ir_at(step, r), "name");
  return TT_OK;
}

static tt_status make_graphs(export *e, const ir_graph *step, const ir_graph *predict) {
  tt_compile_options o = *e->o, p = {.watch = o.watch, .user = o.user, .skip = o.skip, .products = o.products};
  for (int i = 0; i < e->n_cpus; i++) {
    o.cpu = p.cpu = e->variants[i].cpu = e->cpus[i];
    ir_graph *ready;
    if (step && compile_scheduled(step, &o, NULL, &ready, e->err) != TT_OK) return e->err->status;
    if (step) e->variants[i].step = ready;
    if (compile_scheduled(predict, &p, NULL, &ready, e->err) != TT_OK) return e->err->status;
    e->variants[i].predict = ready;
  }
  return step ? list_state(e, e->variants[0].step) : TT_OK;
}

static tt_status find_output(export *e, const ir_graph *g) {
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (g->outputs[i].name && (!strcmp(g->outputs[i].name, "logits") || !strcmp(g->outputs[i].name, "scores"))) {
      e->out = ir_shape(g, g->outputs[i].value), e->out_dtype = (tt_dtype)ir_at(g, g->outputs[i].value)->dtype;
      return TT_OK;
    }
  return tt_fail(e->err, TT_INVALID, "error: %s gives no output\n  at tt_model_export\n  fix: let the model function return its result", e->name);
}

/* ---- texts */

static const char *c_type(tt_dtype t) {
  return t == TT_F32 ? "float" : t == TT_F64 ? "double" : t == TT_I32 ? "int32_t" : t == TT_U8 ? "uint8_t" : t == TT_I64 ? "int64_t" : "void";
}

static void put_header(const export *e, FILE *f) {
  const char *n = e->name, *u = e->upper;
  char x[200], out[200], cpus[200] = "";
  tt_type_text(e->dtype, &e->x, x, sizeof x), tt_type_text(e->out_dtype, &e->out, out, sizeof out);
  for (int i = 0; i < e->n_cpus; i++) snprintf(cpus + strlen(cpus), sizeof cpus - strlen(cpus), "%s%s", i ? ", " : "", e->cpus[i]);
  fprintf(f, "/* %s, compiled ahead of time by tinytorch for %s. Link model.o and libtinytorch_rt; example.c shows all of it.\n *\n", n, cpus);
  fprintf(f, " *     x     %s, row-major\n *     out   %s\n", x, out);
  char y[200] = "";
  tt_shape of_pixels = TT_SHAPE(e->x.dim[0], e->x.dim[2], e->x.dim[3]), of_tokens = e->x, of_samples = TT_SHAPE(e->x.dim[0]);
  tt_type_text(TT_I32, e->labels == TT_PIXEL_LABELS ? &of_pixels : e->dtype == TT_I32 ? &of_tokens : &of_samples, y, sizeof y);
  if (e->o->train) fprintf(f, " *     y     %s, labels, where the loss asks for them; trained with %s%s%s\n", y, e->o->optimizer ? e->o->optimizer : "sgd", e->o->hyper ? ", " : "", e->o->hyper ? e->o->hyper : "");
  fprintf(f, " *\n * Functions that can fail return TT_OK or what went wrong, with a message in err (zero it before it is used again), which may be NULL. A model is\n"
             " * used by one thread at a time. */\n#ifndef TT_MODEL_%s_H\n#define TT_MODEL_%s_H\n\n#include <tinytorch/runtime/aot.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", u, u);
  fprintf(f, "enum { %s_BATCH = %lld, %s_X_COUNT = %lld, %s_OUT_COUNT = %lld };      /* elements of x and out, the whole batch */\n", u, (long long)e->x.dim[0], u, (long long)tt_shape_count(&e->x), u, (long long)tt_shape_count(&e->out));
  fprintf(f, "typedef rt_compiled %s;\n\n", n);
  fprintf(f, "/* A model with its memory and its team of threads (0: TT_NUM_THREADS, else all that may be used); NULL: this CPU can run none of the code, or no memory. */\n%s *%s_new(int n_threads, tt_error *err);\n", n, n);
  fprintf(f, "void %s_free(%s *m);\n/* Weights and running statistics, as safetensors. */\ntt_status %s_load(%s *m, const char *path, tt_error *err);\ntt_status %s_save(%s *m, const char *path, tt_error *err);\n", n, n, n, n, n, n);
  if (e->o->train) {
    fprintf(f, "/* One training step; *loss: of this batch before it (loss may be NULL). */\ntt_status %s_step(%s *m, const %s *x, const int32_t *y, double lr, double *loss, tt_error *err);\n", n, n, c_type(e->dtype));
    fprintf(f, "void %s_seed(%s *m, uint64_t seed);      /* of dropout and noise in training */\n", n, n);
  }
  fprintf(f, "tt_status %s_predict(%s *m, const %s *x, %s *out, tt_error *err);\n", n, n, c_type(e->dtype), c_type(e->out_dtype));
  fprintf(f, "rt_params *%s_params(%s *m);             /* by name: rt_params_find */\nconst char *%s_cpu(const %s *m);         /* the CPU whose code runs */\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n", n, n, n, n);
}

static const char build_line[] = "cc -O2 example.c model.o $(pkg-config --cflags --libs tinytorch_rt) -o example";

/* The example's data, opened and checked against what the model takes. */
static void put_open(const export *e, FILE *f, bool text) {
  const int64_t *d = e->x.dim;
  if (text) {
    fprintf(f, "  tt_tokenizer *tokenizer = NULL;\n  tt_dataset *train, *test;\n"
               "  if (tt_text_open(what, &(tt_text_options){.context = %lld, .masked = masked}, &tokenizer, &train, &test, &err) != TT_OK) return fail(&err);\n", (long long)d[1]);
    fprintf(f, "  if (test->n_classes > %lld) {\n    fprintf(stderr, \"the model knows %lld tokens, the text has %%lld\\n\", (long long)test->n_classes);\n    return 1;\n  }\n", (long long)e->out.dim[2], (long long)e->out.dim[2]);
    return;
  }
  if (e->o->train) fprintf(f, "  tt_dataset *train = tt_dataset_open(what, true, &err);\n");
  fprintf(f, "  tt_dataset *test = %stt_dataset_open(what, false, &err)%s;\n  if (!test) return fail(&err);\n", e->o->train ? "train ? " : "", e->o->train ? " : NULL" : "");
  fprintf(f, "  if (test->channels != %lld || test->height != %lld || test->width != %lld) {\n    fprintf(stderr, \"the model takes images of %lldx%lldx%lld\\n\");\n    return 1;\n  }\n", (long long)d[1], (long long)d[2], (long long)d[3],
          (long long)d[1], (long long)d[2], (long long)d[3]);
}

static void put_training(const export *e, FILE *f) {
  const char *n = e->name, *u = e->upper;
  fprintf(f, "  tt_loader *batches = tt_loader_new(train, &(tt_loader_options){.batch = %s_BATCH, .shuffle = true, .drop_last = true, .seed = seed, .n_threads = 1}, &err);\n  if (!batches) return fail(&err);\n  %s_seed(m, seed);\n", u, n);
  fprintf(f, "  for (int i = 0; i < steps; i++) {\n    tt_batch b;\n    if (tt_loader_next(batches, &b, &err) != TT_OK || %s_step(m, tt_tensor_data(b.x), tt_tensor_data(b.y), lr, &loss, &err) != TT_OK) return fail(&err);\n    printf(\"step %%d: loss %%.4f\\n\", i + 1, loss);\n  }\n", n);
  fprintf(f, "  tt_loader_free(batches);\n  if (%s_save(m, \"trained.safetensors\", &err) != TT_OK) return fail(&err);\n\n", n);
}

/* What the model makes of one batch of the part to test on. A label has its own scores, `classes` numbers that are `apart` from one another; y < 0 does not count. */
static void put_predicting(const export *e, FILE *f, bool text) {
  const char *n = e->name, *u = e->upper;
  bool pixels = e->out.rank == 4 && e->labels == TT_PIXEL_LABELS;
  fprintf(f, "  tt_loader *batches_of_test = tt_loader_new(test, &(tt_loader_options){.batch = %s_BATCH, .n_threads = 1}, &err);\n  if (!batches_of_test) return fail(&err);\n", u);
  fprintf(f, "  float *out = malloc(sizeof *out * %s_OUT_COUNT);\n  tt_batch b;\n  if (!out || tt_loader_next(batches_of_test, &b, &err) != TT_OK || %s_predict(m, tt_tensor_data(b.x), out, &err) != TT_OK) return fail(&err);\n", u, n);
  if (!text && !pixels && e->out.rank != 2) {
    fprintf(f, "  printf(\"%%d numbers, the first %%g\\n\", %s_OUT_COUNT, out[0]);\n", u);
    return;
  }
  long long area = pixels ? e->out.dim[2] * e->out.dim[3] : 1, labels = text ? e->x.dim[1] : area, classes = pixels ? e->out.dim[1] : e->out.dim[e->out.rank - 1];
  fprintf(f, "  const int32_t *y = tt_tensor_data(b.y);\n  int area = %lld, classes = %lld, labels = 0, right = 0;\n  for (int i = 0; i < b.count * %lld; i++) {\n", area, classes, labels);
  fprintf(f, "    const float *scores = out + i / area * area * classes + i %% area;\n    int best = 0;\n    for (int k = 1; k < classes; k++)\n      if (scores[k * area] > scores[best * area]) best = k;\n    labels += y[i] >= 0, right += best == y[i];\n  }\n");
  fprintf(f, "  printf(\"%%d of %%d test %s right\\n\", right, labels);\n", text ? "tokens" : pixels ? "pixels" : "images");
}

static void put_example(const export *e, FILE *f) {
  const char *n = e->name, *u = e->upper;
  bool images = e->x.rank == 4 && e->dtype == TT_F32 && e->out_dtype == TT_F32, text = e->x.rank == 2 && e->dtype == TT_I32 && e->out.rank == 3 && e->out_dtype == TT_F32, data = images || text;
  const char *drawn = text ? "sentences" : e->labels == TT_PIXEL_LABELS ? "shape-masks" : "shapes";
  fprintf(f, "/* %s %s, with libtinytorch_rt alone.\n *\n *     %s\n *     ./example%s%s%s\n", e->o->train && data ? "Trains and runs" : "Runs", n, build_line, text ? " [TEXT" : images ? " [SET:DIR" : "",
          !data ? "" : e->o->train ? " [STEPS [SEED [LR" : "", !data ? "" : text ? e->o->train ? " [MASKED]]]]]" : " [MASKED]]" : e->o->train ? "]]]]" : "]");
  if (text) fprintf(f, " *\n * TEXT: a file, or a folder with train.txt and val.txt; its tokens are its characters. MASKED: the share of tokens that are hidden and guessed, 0.15 of\n * bert; 0: what follows each token is.\n");
  fprintf(f, " */\n#include <stdio.h>\n#include <stdlib.h>\n\n#include \"model.h\"\n\n");
  fprintf(f, "static int fail(const tt_error *err) {\n  fprintf(stderr, \"%%s\\n\", err->message);\n  return 1;\n}\n\n");
  fprintf(f, "int main(%s) {\n  tt_error err = {0};\n  %s *m = %s_new(0, &err);\n  if (!m || %s_load(m, \"weights.safetensors\", &err) != TT_OK) return fail(&err);\n  printf(\"%s runs the code for %%s\\n\", %s_cpu(m));\n", data ? "int argc, char **argv" : "void", n, n, n, n, n);
  if (!data) {
    fprintf(f, "  %s *x = calloc(%s_X_COUNT, sizeof *x), *out = calloc(%s_OUT_COUNT, sizeof *out);      /* zeros: put your own here */\n", c_type(e->dtype), u, u);
    fprintf(f, "  if (!x || !out || %s_predict(m, x, (void *)out, &err) != TT_OK) return fail(&err);\n  free(x), free(out);\n  %s_free(m);\n  return 0;\n}\n", n, n);
    return;
  }
  fprintf(f, "  const char *what = argc > 1 ? argv[1] : \"%s:%lld\";      /* drawn, needs no files */\n", drawn, (long long)(e->x.dim[0] * (text ? 200 : 10)));
  if (e->o->train) fprintf(f, "  int steps = argc > 2 ? atoi(argv[2]) : 10;\n  uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;\n  double lr = argc > 4 ? atof(argv[4]) : %.17g, loss = 0;\n", e->lr);
  if (text) fprintf(f, "  double masked = argc > %d ? atof(argv[%d]) : 0;\n", e->o->train ? 5 : 2, e->o->train ? 5 : 2);
  put_open(e, f, text);
  if (e->o->train) put_training(e, f);
  put_predicting(e, f, text);
  fprintf(f, "  free(out);\n  tt_loader_free(batches_of_test);\n  tt_dataset_free(test);\n%s%s  %s_free(m);\n  return 0;\n}\n", e->o->train || text ? "  tt_dataset_free(train);\n" : "", text ? "  tt_tokenizer_free(tokenizer);\n" : "", n);
}

static tt_status write_text(const export *e, const char *file, void put(const export *e, FILE *f)) {
  char *text = NULL, path[4200];
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  if (f) put(e, f);
  tt_status status = f && fclose(f) == 0 ? rt_write_file(in_folder(e, file, path, sizeof path), text, size, e->err)
                                         : tt_fail(e->err, TT_NO_MEMORY, "error: no memory for a text\n  at %s\n  fix: free memory", file);
  free(text);
  return status;
}

/* ---- all of it */

static tt_status export_files(export *e, const ir_graph *step, const ir_graph *predict) {
  char path[4200];
  const tt_compile_options *o = e->o;
  if (find_output(e, predict) != TT_OK || make_graphs(e, step, predict) != TT_OK) return e->err->status;
  if (mkdir(e->folder, 0777) && errno != EEXIST) return tt_fail(e->err, TT_IO, "error: the folder cannot be made: %s\n  at %s\n  fix: give a path in a folder that may be written", strerror(errno), e->folder);
  cg_options c = {.n_threads = o->n_threads, .watch = o->watch, .kernel = o->kernel, .warn = o->warn, .user = o->user, .stop = o->stop};
  if (cg_object(e->name, e->variants, e->n_cpus, e->state, e->n_state, in_folder(e, "model.o", path, sizeof path), &c, e->err) != TT_OK) return e->err->status;
  if (tt_model_save(e->m, in_folder(e, "weights.safetensors", path, sizeof path), e->err) != TT_OK) return e->err->status;
  return write_text(e, "model.h", put_header) == TT_OK ? write_text(e, "example.c", put_example) : e->err->status;
}

tt_status tt_model_export(tt_model *m, tt_dtype dtype, const tt_shape *x, tt_labels labels, const tt_compile_options *options, const char *const *cpus, int n, double lr, const char *folder, tt_error *err) {
  const tt_compile_options none = {0};
  tt_error own = {0};
  if (!err) err = &own;
  export e = {.m = m, .dtype = dtype, .x = *x, .labels = labels, .o = options ? options : &none, .folder = folder, .lr = lr, .err = err};
  if (x->rank < 1) return tt_fail(err, TT_INVALID, "error: x has no batch\n  at tt_model_export\n  fix: give a shape [batch, ...]");
  if (strlen(folder) > 4000) return tt_fail(err, TT_INVALID, "error: the folder's name is too long\n  at tt_model_export\n  fix: use a shorter one");
  word_of(model_target_of(m).name, e.name, sizeof e.name);
  for (size_t i = 0; i <= strlen(e.name); i++) e.upper[i] = (char)toupper((unsigned char)e.name[i]);
  ir_graph *step = NULL, *predict = NULL;
  tt_status status = list_cpus(&e, cpus, n);
  if (status == TT_OK) status = tt_model_trace(m, dtype, x, false, false, &predict, err);
  if (status == TT_OK && e.o->train) status = tt_model_trace(m, dtype, x, labels, true, &step, err);
  if (status == TT_OK) status = export_files(&e, step, predict);
  for (int i = 0; i < e.n_cpus; i++) ir_graph_free((ir_graph *)e.variants[i].step), ir_graph_free((ir_graph *)e.variants[i].predict);
  ir_graph_free(step), ir_graph_free(predict);
  free(e.state);
  return status;
}
