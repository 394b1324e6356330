/* tinytorch.h: the public interface, the one file that a program includes.
 *
 * A model is a plain C function over symbolic values. Calling it once records a graph; the graph is differentiated,
 * compiled for the CPU at hand, and trained:
 *
 *     static tt_val model(tt_val x, void *arg) {
 *       x = tt_relu(tt_linear(tt_flatten(x, 1), "fc1", 128));
 *       return tt_linear(x, "fc2", 10);
 *     }
 *     tt_model *m = tt_model_new(model, NULL, &(tt_model_options){.seed = 1}, &err);
 *     tt_train(m, &(tt_train_options){.data = "mnist:DIR", .epochs = 3, .batch = 64, .lr = 0.1}, &result, &err);
 *     tt_model_save(m, "model.safetensors", &err);
 *
 * Mistakes in a model are sticky: the first one is kept by the trace, every value made from it is poison and does
 * nothing, and the end of the trace returns it, in three parts: what, where (file, line, scope, and where the values
 * came from), and how to mend it. No call here prints, exits or aborts.
 *
 * A tt_error keeps the first failure: zero it before it is used again.
 *
 * Ops are macros that pass the caller's file and line on; the function behind tt_NAME is tt_NAME_at. */
#ifndef TT_TINYTORCH_H
#define TT_TINYTORCH_H

#include "../ir/types.h"
#include "../runtime/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tt_trace tt_trace;
/* A symbolic tensor: a row of the graph being traced. {0} is no value. */
typedef struct { tt_trace *trace; uint32_t ref; } tt_val;
/* A place in C source. */
typedef struct { const char *file; int line; } tt_here;
#define TT_HERE ((tt_here){__FILE__, __LINE__})

/* TT_SHAPE(64, 3, 32, 32) is a tt_shape. TT_INTS(1, 2) is a list of at most 16 numbers; TT_AXES reads better for axes, which may
 * be negative (from the end) everywhere. TT_ALL: all axes. */
typedef struct { int n; int64_t v[16]; } tt_ints;
#define TT_SHAPE(...) ((tt_shape){.rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}})
#define TT_SCALAR ((tt_shape){.rank = 0})
#define TT_INTS(...) ((tt_ints){.n = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .v = {__VA_ARGS__}})
#define TT_AXES TT_INTS
#define TT_ALL ((tt_ints){.n = 0})

/* -- Tracing (trace.c) ------------------------------------------------------------------------------------------------- */

/* training says which of the two traces of a model this is: dropout drops, batch_norm uses the batch's statistics. NULL: no memory. */
TT_API tt_trace *tt_trace_new(const char *name, bool training);
TT_API void tt_trace_free(tt_trace *t);
/* Ends the trace. On TT_OK the graph is the caller's (ir_graph_free); else err has the first mistake. The trace itself stays, with
 * its parameters' initializers and its warnings. */
struct ir_graph;
TT_API tt_status tt_trace_finish(tt_trace *t, struct ir_graph **graph, tt_error *err);
/* Things that work, but that the user will want to know: a softmax fed to cross_entropy. In three parts as errors are, without the word
 * "warning". NULL after the last. */
TT_API const char *tt_trace_warning(const tt_trace *t, int i);
/* What a call of the compiled program is given, by name. Two inputs of one name are an error. */
TT_API tt_val tt_input_at(tt_here, tt_trace *t, const char *name, tt_dtype dtype, tt_shape shape);
#define tt_input(trace, name, dtype, shape) tt_input_at(TT_HERE, trace, name, dtype, shape)
/* What it returns, by name, in order. */
TT_API void tt_output_at(tt_here, tt_trace *t, const char *name, tt_val v);
#define tt_output(trace, name, v) tt_output_at(TT_HERE, trace, name, v)

/* Scopes name parameters and say in messages where an op is: inside "encoder" and "3", the parameter "weight" is
 * "encoder.3.weight", and the path is encoder/3. Layers open one of their own name. x is any value of the trace. */
TT_API void tt_scope_push_at(tt_here, tt_val x, const char *name);
TT_API void tt_scope_pop_at(tt_here, tt_val x);
#define tt_scope_push(x, name) tt_scope_push_at(TT_HERE, x, name)
#define tt_scope_pop(x) tt_scope_pop_at(TT_HERE, x)

TT_API bool tt_is_training(tt_val x);
TT_API tt_shape tt_shape_of(tt_val x);            /* rank 0 for poison */
TT_API tt_dtype tt_dtype_of(tt_val x);            /* TT_F32 for poison */
TT_API int tt_rank(tt_val x);
TT_API int64_t tt_dim(tt_val x, int axis);        /* axis may be negative; 1 for poison, so that sums with it stay finite */
TT_API bool tt_ok(tt_val x);                      /* false for poison */

/* Initial values (nn/init.c). They depend on the seed and the parameter's full name alone, not on the order of declaration.
 * DEFAULT (left out) is a layer's own choice, and zeros elsewhere. Fans are PyTorch's: for a shape [out, in, *k], fan_in = in * prod(k) and fan_out = out * prod(k). */
typedef enum { TT_INIT_DEFAULT, TT_INIT_ZEROS, TT_INIT_CONSTANT, TT_INIT_UNIFORM, TT_INIT_NORMAL, TT_INIT_XAVIER_UNIFORM, TT_INIT_XAVIER_NORMAL,
               TT_INIT_KAIMING_UNIFORM, TT_INIT_KAIMING_NORMAL, TT_INIT_DATA } tt_init_kind;
typedef struct { tt_init_kind kind; double a, b; const void *data; } tt_init;
#define tt_init_zeros() ((tt_init){TT_INIT_ZEROS, 0, 0, NULL})
#define tt_init_ones() ((tt_init){TT_INIT_CONSTANT, 1, 0, NULL})
#define tt_init_constant(value) ((tt_init){TT_INIT_CONSTANT, value, 0, NULL})
#define tt_init_uniform(low, high) ((tt_init){TT_INIT_UNIFORM, low, high, NULL})
#define tt_init_normal(mean, std) ((tt_init){TT_INIT_NORMAL, mean, std, NULL})
/* Glorot & Bengio 2010: variance gain^2 * 2 / (fan_in + fan_out). */
#define tt_init_xavier_uniform(gain) ((tt_init){TT_INIT_XAVIER_UNIFORM, gain, 0, NULL})
#define tt_init_xavier_normal(gain) ((tt_init){TT_INIT_XAVIER_NORMAL, gain, 0, NULL})
/* He et al. 2015: variance 2 / ((1 + slope^2) * fan_in); slope of the leaky relu that follows, 0 for relu, sqrt(5) for what PyTorch's
 * linear and convolution start from. */
#define tt_init_kaiming_uniform(slope) ((tt_init){TT_INIT_KAIMING_UNIFORM, slope, 0, NULL})
#define tt_init_kaiming_normal(slope) ((tt_init){TT_INIT_KAIMING_NORMAL, slope, 0, NULL})
/* Dense values of the parameter's own type; they must outlive the trace. */
#define tt_init_data(values) ((tt_init){TT_INIT_DATA, 0, 0, values})
/* Fills `out` (dense, of type t and shape s) as the parameter of that name starts. */
TT_API tt_status tt_init_fill(tt_init init, const char *name, uint64_t seed, tt_dtype t, const tt_shape *s, void *out, tt_error *err);

typedef enum { TT_TRAINED, TT_FROZEN, TT_STATE } tt_param_use;
/* A parameter, named by the scope. tt_param is trained; tt_param_frozen is a weight that is not; tt_state is changed by
 * assign alone (running statistics). Its type is that of x; when x is of no real type (an index), that of the trace's first real input, f32 without one. A name that is taken is an error. */
TT_API tt_val tt_param_at(tt_here, tt_val x, const char *name, tt_shape shape, tt_init init, tt_param_use use);
#define tt_param(x, name, shape, init) tt_param_at(TT_HERE, x, name, shape, init, TT_TRAINED)
#define tt_param_frozen(x, name, shape, init) tt_param_at(TT_HERE, x, name, shape, init, TT_FROZEN)
#define tt_state(x, name, shape, init) tt_param_at(TT_HERE, x, name, shape, init, TT_STATE)
/* The same in the present scope with a type said. */
TT_API tt_val tt_param_typed_at(tt_here, tt_trace *t, const char *name, tt_dtype dtype, tt_shape shape, tt_init init, tt_param_use use);
#define tt_param_typed(trace, name, dtype, shape, init, use) tt_param_typed_at(TT_HERE, trace, name, dtype, shape, init, use)
/* The parameter or state has the value v from the next call of the program on; reads in this call see the old one. */
TT_API void tt_assign_at(tt_here, tt_val param, tt_val v);
#define tt_assign(param, v) tt_assign_at(TT_HERE, param, v)

/* d loss / d wrt[i] for a scalar loss, as values of the same trace, which can be differentiated again. What loss does not depend on
 * gets zeros. tt_vjp: of sum(y * cotangent), y of any shape. */
TT_API void tt_grad_at(tt_here, tt_val loss, const tt_val *wrt, int n, tt_val *out);
TT_API void tt_vjp_at(tt_here, tt_val y, tt_val cotangent, const tt_val *wrt, int n, tt_val *out);
#define tt_grad(loss, wrt, n, out) tt_grad_at(TT_HERE, loss, wrt, n, out)
#define tt_vjp(y, cotangent, wrt, n, out) tt_vjp_at(TT_HERE, y, cotangent, wrt, n, out)

/* A loop over time. body writes the graph of one step, once: from the carries, from step t of each x, and from the rest, which is the same in every step, to each carry's next value, of
 * its type and shape, and the step's part of each y. carry: the first values; x [T,...]; the results are the last values of the carries and y [T,...]. Parameters that the body declares (the
 * layers of nn.h do) are the model's, one for all steps. Other values from outside come in by `rest`; random numbers, which would be the same in each step, by x. Derivatives of any order are
 * scans in the other direction, which keep what every step made (backpropagation through time, Werbos 1990). A scan in the body of a scan is fine.
 *
 *     static void step(const tt_scan_step *s, void *arg) { s->next[0] = s->y[0] = tt_tanh(tt_add(tt_linear(s->x[0], "ih", 64), tt_linear(s->carry[0], "hh", 64))); }
 *     tt_val y = tt_scan(step, NULL, .carry = &h0, .n_carry = 1, .x = &x, .n_x = 1, .n_y = 1).y[0]; */
enum { TT_SCAN_MOST = 16 };        /* of each list */
typedef struct { const tt_val *carry, *x, *rest; tt_val *next, *y; } tt_scan_step;
typedef void tt_scan_body(const tt_scan_step *s, void *arg);
typedef struct {
  const tt_val *carry, *x, *rest;
  int n_carry, n_x, n_rest, n_y;
  int64_t length;                  /* steps; without x it must be said */
  bool reversed;                   /* from the last step to the first */
} tt_scan_args;
typedef struct { tt_val carry[TT_SCAN_MOST], y[TT_SCAN_MOST]; } tt_scan_result;      /* carries after the last step that is taken, and every step's y at its place in time */
TT_API tt_scan_result tt_scan_at(tt_here, tt_scan_body *body, void *arg, tt_scan_args a);
#define tt_scan(body, arg, ...) tt_scan_at(TT_HERE, body, arg, (tt_scan_args){__VA_ARGS__})

/* A scalar that the model is trained to make small, said by its own function, in the place of a loss of its result and of labels; what several calls
 * say adds up. So a model that needs no labels, or has a loss of what lies inside it, is one function still. */
TT_API void tt_loss_at(tt_here, tt_val v);
#define tt_loss(v) tt_loss_at(TT_HERE, v)

#include "ops.h"
#include "nn.h"
#include "sequential.h"
#include "loss.h"

/* -- Compiling, training, predicting (compile.c, train.c) -------------------------------------------------------------- */

typedef tt_val tt_model_fn(tt_val x, void *arg);
/* loss of a prediction [B, ...] and the labels [B] (i32): a scalar. */
typedef tt_val tt_loss_fn(tt_val prediction, tt_val y, void *arg);

/* Parameters with an optimizer of their own (a row of passes/optim.def; NULL: they are frozen) and hyperparameters; the first group that fits counts. pattern: a name or its first
 * components, "fc1" for fc1.weight and fc1.bias; a name with * for any characters, "blocks.*.bias"; or a number of axes, "ndim<2" (<, <=, =, !=, >=, >): biases and norms. */
typedef struct { const char *pattern, *optimizer, *hyper; } tt_param_group;

typedef struct {
  const char *backend;             /* "jit" (also NULL): machine code; "interp": plain C, op by op, the reference */
  const char *cpu;                 /* NULL: this one; "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4+bf16", "x86-64-v4+amx" */
  int n_threads;                   /* to compile with; 0: as many as there are */
  const char *skip;                /* "layout,fuse": optional passes left out */
  const char *products;            /* "f32" (also NULL); "bf16", mixed precision: f32 products and convolutions take operands rounded to bf16 (8 bits), sums, weights
                                      and all else stay f32; "bf16x6": f32 matmuls as six bf16 ones of split operands, as exact as f32, for CPUs with AMX */
  const char *tuned;               /* file of plans from tinytorch tune; NULL: TT_TUNED, else the user's own if there is one; "none" */
  bool train;                      /* output 0 is the loss: gradients and the optimizer's update are added */
  const char *optimizer;           /* a row of passes/optim.def: "sgd" (also NULL), "adam", "adamw" ... */
  const char *hyper;               /* "momentum=0.9, weight_decay=5e-4": over the optimizer's defaults */
  tt_param_group groups[8];        /* up to the first without a pattern */
  bool no_decay_norm_bias;         /* no weight decay of parameters with less than two axes (biases, weights of norms), whatever their group says */
  double ema;                      /* 0 < ema < 1: NAME.ema, a running mean of each trained parameter and running statistic: itself after the first update, then ema of the mean
                                      and 1 - ema of the parameter (Polyak & Juditsky 1992) */
  double clip_norm;                /* > 0: gradients are scaled down to this global 2-norm (Pascanu et al. 2013) */
  int accumulate;                  /* N > 1: an update takes the mean of the gradients of N batches, as a mean loss over one batch N times as large would.
                                      Two programs that share the parameters: the one with collect is run for the first N-1 batches and adds its
                                      gradients to parameters NAME.grad, the other for the last. Both take step: i64[], the number of the batch */
  bool collect;
  int64_t memory_budget;           /* > 0: the most bytes that a run may need, tensors and scratch of n_threads included (0: the default team);
                                      values are computed again instead of kept where that is needed. An error names the least it can reach */
  bool scores;                     /* of a model of tokens, evaluation with labels: its prediction [B,T,classes] is an output too, "scores", for metrics */
  bool gradients;                  /* every parameter's gradient is also an output, "grad.NAME" */
  void (*watch)(void *user, const char *pass, const struct ir_graph *g, double milliseconds);     /* after every pass */
  /* After every kernel, by one thread at a time, which may be any: the done-th of total; milliseconds of lowering, LLVM IR and machine code; cached: its
     code was in the cache of compiled kernels. */
  void (*kernel)(void *user, const char *name, int done, int total, const double milliseconds[3], bool cached);
  void (*warn)(void *user, const char *text);      /* what works but should be known, in three parts as errors are: files of the cache that cannot be used */
  void *user;
  const volatile int *stop;        /* set to 1: ends with TT_INTERRUPTED */
} tt_compile_options;
/* A traced graph becomes a program. NULL options: all defaults. Free with rt_program_free. */
TT_API tt_status tt_compile(const struct ir_graph *g, const tt_compile_options *options, rt_program **program, tt_error *err);

/* How a published checkpoint calls a parameter. A * stands for the same characters in both; transposed: matrices stand as [in, out] there and as [out, in] here, as GPT-2's do; tied: the
 * model has no parameter of its own for it: where it is, it must be equal to `name`. What the file puts before all its names ("transformer.") is found. */
typedef struct { const char *name, *published; bool transposed, tied; } tt_weight_name;

/* A model with its parameters. Programs are compiled for the shapes they are called with, and kept. One thread at a time. */
typedef struct tt_model tt_model;
typedef struct {
  const char *name;                /* NULL: "model" */
  uint64_t seed;                   /* of initial values */
  const char *backend, *cpu;       /* as in tt_compile_options */
  const char *skip, *tuned, *products;
  int n_threads;                   /* of the team that runs programs; 0: TT_NUM_THREADS, else the cores there are */
  const tt_weight_name *names;     /* up to the first without a name: files of weights that tt_model_load takes too; must outlive the model */
  bool no_ema;                     /* tt_model_load takes the weights themselves from a checkpoint that has their running means too */
  tt_loss_fn *loss;                /* NULL: cross entropy of logits [B, classes] and labels [B] */
} tt_model_options;
/* arg is handed to the function (and the loss) at each trace, and must outlive the model. options NULL: defaults. */
TT_API tt_model *tt_model_new(tt_model_fn *function, void *arg, const tt_model_options *options, tt_error *err);
TT_API void tt_model_free(tt_model *m);
/* Weights and running statistics as safetensors, with PyTorch's names and layouts. load may come before or after the first use; a
 * tensor of the model that the file lacks, or has in another shape, is an error (at once when the model has been traced already,
 * else at its first use); what the file has besides is ignored. Of a checkpoint that was trained with ema load takes the running means, as tt_train leaves them. Before the first use there is nothing to save: an error. */
TT_API tt_status tt_model_save(tt_model *m, const char *path, tt_error *err);
TT_API tt_status tt_model_load(tt_model *m, const char *path, tt_error *err);
/* The weights with the names and layouts of a published checkpoint. A parameter without a row in names is an error. */
TT_API tt_status tt_model_save_published(tt_model *m, const tt_weight_name *names, const char *path, tt_error *err);
/* The model's result in evaluation mode for x [B, ...]. The first call with a shape compiles. The caller frees the result. */
TT_API tt_tensor *tt_predict(tt_model *m, tt_tensor *x, tt_error *err);
TT_API rt_params *tt_model_params(tt_model *m);           /* borrowed; filled by the first trace */
TT_API rt_team *tt_model_team(tt_model *m, tt_error *err);
/* What y is: of each sample, i32[B]; shares of the classes, [B, classes] of x's type; of each pixel of images [B,C,H,W], i32[B,H,W]. */
typedef enum { TT_NO_LABELS, TT_LABELS, TT_SOFT_LABELS, TT_PIXEL_LABELS } tt_labels;
/* A graph of the model for x of that type and shape, and, with labels, y and its loss (y falls away when the model's function calls tt_loss).
 * For integers x [B,T] the prediction is [B,T,classes], y is i32[B,T], and the loss is the mean over the labels that are not -1; with labels, loss is then
 * the only output.
 * training: outputs loss, and correct: i64[] when the prediction is [B, classes] (or [B, classes, H, W] with labels of pixels) and the loss
 * is cross entropy or the options'. Else outputs logits (scores, when the loss is another), and loss with labels.
 * Its parameters join the model's with their initial values. warnings: joined into the model's list. */
TT_API tt_status tt_model_trace(tt_model *m, tt_dtype dtype, const tt_shape *x, tt_labels labels, bool training, struct ir_graph **graph, tt_error *err);
TT_API const char *tt_model_warning(const tt_model *m, int i);       /* NULL after the last */
/* Ahead of time (ahead.c): the model for x of that type and shape as files in `folder`, which is made: model.o and model.h (runtime/aot.h says how they
 * are used), weights.safetensors, and example.c. o->train: its training step too, with such labels. cpus: n names as in tt_compile_options, NULL or n 0: this CPU; the
 * best of them that a CPU can run is taken there, at start. lr: what the example trains with. */
TT_API tt_status tt_model_export(tt_model *m, tt_dtype dtype, const tt_shape *x, tt_labels labels, const tt_compile_options *o, const char *const *cpus, int n, double lr, const char *folder, tt_error *err);
/* Its compiled step (training, with o's optimizer) or evaluation; optimizer state joins the parameters as zeros. */
TT_API tt_status tt_model_compile(tt_model *m, tt_dtype dtype, const tt_shape *x, tt_labels labels, const tt_compile_options *o, rt_program **program, tt_error *err);

typedef struct {
  const char *data;                /* "fashion-mnist:DIR", "mnist:DIR", "cifar10:DIR", "shapes:COUNT" */
  const tt_dataset *train, *test;  /* instead of data */
  int64_t epochs, max_steps;       /* epochs 0: 1; max_steps 0: no limit */
  int64_t batch;                   /* 0: 64 */
  int64_t accumulate;              /* N > 1: batches of one update: as if batch were N times as large, but for batch statistics (a warning says so). Steps, schedule
                                      and checkpoints count updates; what remains of an epoch and makes no whole update is left out */
  double lr;                       /* 0: 0.01 */
  const char *schedule;            /* "constant" (also NULL), "cosine", "cosine_restarts", "step", "multistep", "exponential", "polynomial", "onecycle", "plateau" */
  int64_t warmup;                  /* steps in which lr grows to its value */
  int64_t step_size; double gamma; /* of "step": lr * gamma^(step / step_size); of the others as in tt_schedule */
  int64_t milestones[TT_MILESTONES], restart_factor;
  double power;                    /* 0: 1 */
  int64_t patience; double threshold;      /* of "plateau", which cuts the rate by gamma when the test loss does not fall: as in tt_schedule */
  const char *optimizer, *hyper;   /* as in tt_compile_options */
  tt_param_group groups[8];
  bool no_decay_norm_bias;         /* as in tt_compile_options */
  double ema;                      /* > 0: running means of the weights, as in tt_compile_options. Evaluation measures them, checkpoints have both, and when tt_train returns they are
                                      the model's weights */
  double clip_norm;
  int64_t memory_budget;           /* of the training step, as in tt_compile_options */
  uint64_t seed;                   /* of shuffling, augmentation, dropout */
  tt_metrics *metrics;             /* measured of the test part at the end of each epoch, logged as test_NAME; borrowed, and keeps what was measured last. NULL: none */
  tt_augment augment;              /* of the training part; mixup and cutmix: the loss is given labels of real type, [B, classes] */
  const char *log, *checkpoint;    /* JSON lines; folder */
  int64_t checkpoint_every;        /* steps; 0: each epoch */
  const tt_tokenizer *tokenizer;   /* of the text: its vocab.json and merges.txt stand beside the first checkpoint. NULL: none */
  bool resume;
  void (*report)(void *user, const char *line, bool transient);   /* progress */
  void *user;
  volatile int *stop;              /* set to 1 in a signal handler: the step is finished, all is saved, TT_INTERRUPTED; while compiling: nothing is saved */
  void (*watch)(void *user, const char *pass, const struct ir_graph *g, double milliseconds);     /* passes of the step's compilation */
  void (*kernel)(void *user, const char *name, int done, int total, const double milliseconds[3], bool cached);                 /* as in tt_compile_options */
} tt_train_options;
/* Trains the model on the data set's training part and evaluates it on all of the test part. result may be NULL. */
TT_API tt_status tt_train(tt_model *m, const tt_train_options *o, tt_fit_result *result, tt_error *err);
/* Loss and accuracy over all of `test`, in batches (0: 64), and metrics (NULL: none) that it says. */
TT_API tt_status tt_test(tt_model *m, const tt_dataset *test, int64_t batch, tt_metrics *metrics, tt_eval_result *result, tt_error *err);

#include "generate.h"

#ifdef __cplusplus
}
#endif
#endif
