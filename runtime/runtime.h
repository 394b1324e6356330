/* runtime.h: all that a compiled program needs to run, train and predict. Knows no graph and no LLVM.
 * What stands here with TT_API and the prefix tt_ is part of the public interface (frontend/tinytorch.h includes it). */
#ifndef TT_RUNTIME_H
#define TT_RUNTIME_H

#include "program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* memory.c: zeroed and 64-byte aligned; large blocks lie on huge pages where the system has them. NULL: no memory. */
void *rt_alloc(size_t bytes);
void rt_free(void *p, size_t bytes);

/* tensor.c: a typed, strided view on a counted, 64-byte aligned buffer. Strides are in elements. */
typedef struct tt_tensor tt_tensor;
TT_API tt_tensor *tt_tensor_new(tt_dtype t, const tt_shape *s, tt_error *err);            /* zeros */
TT_API tt_tensor *tt_tensor_from(tt_dtype t, const tt_shape *s, const void *data, tt_error *err);   /* copies dense data */
TT_API tt_tensor *tt_tensor_retain(tt_tensor *x);                                          /* another owner of the same view */
TT_API void tt_tensor_free(tt_tensor *x);                                                  /* NULL is fine */
TT_API tt_tensor *tt_tensor_slice(tt_tensor *x, int axis, int64_t start, int64_t stop, int64_t step, tt_error *err);  /* a view */
TT_API tt_tensor *tt_tensor_permute(tt_tensor *x, const int *perm, tt_error *err);         /* a view */
TT_API tt_tensor *tt_tensor_reshape(tt_tensor *x, const tt_shape *s, tt_error *err);       /* a view when dense, else a copy */
TT_API tt_tensor *tt_tensor_dense(tt_tensor *x, tt_error *err);                            /* itself (retained) when dense, else a copy */
TT_API tt_tensor *tt_tensor_cast(tt_tensor *x, tt_dtype t, tt_error *err);
TT_API tt_dtype tt_tensor_dtype(const tt_tensor *x);
TT_API tt_shape tt_tensor_shape(const tt_tensor *x);
TT_API const int64_t *tt_tensor_strides(const tt_tensor *x);
TT_API void *tt_tensor_data(tt_tensor *x);                                                 /* of the first element of the view; as one may write through it, asking for it counts as a change */
/* The elements have been written through a pointer that tt_tensor_data gave earlier. A program keeps what it made of its params (weights packed for products, say) until one
 * of their tensors is changed: by tt_tensor_data, tt_tensor_copy, a program that writes it, or this call. */
TT_API void tt_tensor_changed(tt_tensor *x);
TT_API const void *rt_tensor_read(const tt_tensor *x);                                            /* the same address as tt_tensor_data's, only to be read: no change */
uint64_t rt_tensor_changes(const tt_tensor *x);                                            /* how many there were; views of one buffer share it */
void rt_tensor_written(tt_tensor *x);                                                      /* tt_tensor_changed by the one thread that may write it now: without a lock */
TT_API bool tt_tensor_is_dense(const tt_tensor *x);
TT_API double tt_tensor_at(const tt_tensor *x, const int64_t *index);                      /* any type as a double */
TT_API tt_status tt_tensor_copy(tt_tensor *to, const tt_tensor *from, tt_error *err);      /* equal shapes; converts */

/* team.c: threads that run a program together. Size: TT_NUM_THREADS, else the affinity mask within the cgroup's CPU limit.
 * Waits spin for at most 50 us, then sleep; no spinning when the team is larger than its cores. TT_PIN=0: threads are not pinned. */
typedef struct rt_team rt_team;
TT_API rt_team *rt_team_new(int n_threads, tt_error *err);       /* 0: the default size */
TT_API void rt_team_free(rt_team *t);
TT_API int rt_team_size(const rt_team *t);
TT_API int rt_team_default_size(void);
typedef void rt_team_fn(void *arg, int thread, int n_threads);
TT_API void rt_team_run(rt_team *t, rt_team_fn *fn, void *arg);  /* on all threads, the caller being thread 0; returns when all are done */
TT_API void rt_team_barrier(rt_team *t, int thread);             /* inside rt_team_run */

/* execute.c: a program with its memory. Slots are known by name, or by the number that rt_slot_find gives. */
typedef struct rt_instance rt_instance;
TT_API rt_instance *rt_instance_new(const rt_program *p, rt_team *team, tt_error *err);    /* p and team outlive it */
/* The same, in the arena and scratch of lender where they are large enough: for programs that never run at the same time, and keep nothing there from
 * one run to the next. lender outlives it; NULL: none. */
TT_API rt_instance *rt_instance_new_over(const rt_program *p, rt_team *team, const rt_instance *lender, tt_error *err);
TT_API void rt_instance_free(rt_instance *x);
TT_API int rt_slot_find(const rt_program *p, const char *name);                            /* -1: none */
TT_API tt_status rt_bind(rt_instance *x, const char *name, tt_tensor *dense, tt_error *err);   /* type and shape are checked; retained */
TT_API tt_status rt_bind_slot(rt_instance *x, int slot, tt_tensor *dense, tt_error *err);      /* the same by number; costs nothing when it is bound already */
TT_API tt_status rt_bind_seed(rt_instance *x, uint64_t seed, int64_t step, tt_error *err);     /* inputs seed: u64[] and step: i64[], where the program has them */
TT_API tt_tensor *rt_bound(rt_instance *x, const char *name);                              /* borrowed; outputs too (made on demand); NULL: no such name */
TT_API tt_status rt_run(rt_instance *x, tt_error *err);                                    /* one call; no allocation */
/* The same with a barrier around each step, after which the hook is called on thread 0 while the others wait: false ends the run
 * there (TT_INTERRUPTED; params may hold half a step). Times, checks and interrupts hang on it; rt_run pays nothing for them. */
typedef bool rt_step_hook(void *user, rt_instance *x, uint32_t step, double seconds);
TT_API tt_status rt_run_hooked(rt_instance *x, rt_step_hook *hook, void *user, tt_error *err);
TT_API tt_status rt_run_timed(rt_instance *x, double *seconds, tt_error *err);            /* the time of each step goes to seconds[step] */
/* After a run with a bad loss: runs again step by step and names the first step that writes a number that is not finite. Fills
 * text with kernel and origin. Params must be as before that run. */
TT_API bool rt_find_not_finite(rt_instance *x, char *text, size_t size);
TT_API size_t rt_instance_bytes(const rt_instance *x);
TT_API const rt_program *rt_instance_program(const rt_instance *x);
TT_API void rt_program_free(rt_program *p);

/* plan.c: bytes that a program needs in a team of n_threads. state: what the optimizer keeps, PARAM.NAME; gradients: outputs grad.NAME, and sums NAME.grad; scratch: of
 * all threads together. */
typedef struct { size_t params, state, gradients, inputs, outputs, constants, arena, scratch, total; } rt_memory;
TT_API rt_memory rt_program_memory(const rt_program *p, int n_threads);
size_t rt_scratch_stride(const rt_program *p);

/* params.c: the named state of a model: weights, running statistics, optimizer state. Programs share one store. */
typedef struct rt_params rt_params;
typedef struct { const char *name; tt_tensor *tensor; bool trainable; bool optimizer_state; bool passing; } rt_param;      /* passing: means nothing between two updates, so no checkpoint has it */
TT_API rt_params *rt_params_new(void);
TT_API void rt_params_free(rt_params *s);
TT_API tt_status rt_params_add(rt_params *s, const char *name, tt_tensor *take, bool trainable, bool optimizer_state, tt_error *err);
TT_API rt_param *rt_params_find(rt_params *s, const char *name);
TT_API int rt_params_count(const rt_params *s);
TT_API rt_param *rt_params_at(rt_params *s, int i);
TT_API tt_status rt_params_bind(rt_params *s, rt_instance *x, tt_error *err);              /* every RT_PARAM slot of the program */
tt_status rt_params_bind_averages(rt_params *s, rt_instance *x, tt_error *err);            /* the same, and NAME.ema in the place of NAME where there is one */
TT_API void rt_params_take_averages(rt_params *s);                                                /* each parameter becomes what its NAME.ema is */

/* safetensors.c: files are mapped, and header and size checked before anything is believed; written to a temporary file,
 * synced and renamed. */
typedef struct tt_safetensors tt_safetensors;
TT_API tt_safetensors *tt_safetensors_open(const char *path, tt_error *err);
TT_API tt_safetensors *tt_safetensors_open_memory(const void *data, size_t bytes, const char *name, tt_error *err);   /* borrowed */
TT_API void tt_safetensors_close(tt_safetensors *f);
TT_API int tt_safetensors_count(const tt_safetensors *f);
TT_API const char *tt_safetensors_name(const tt_safetensors *f, int i);
TT_API tt_shape tt_safetensors_shape(const tt_safetensors *f, int i);
TT_API tt_tensor *tt_safetensors_get(tt_safetensors *f, const char *name, tt_error *err);  /* a copy */
TT_API const char *tt_safetensors_metadata(const tt_safetensors *f, const char *key);      /* NULL: none */
typedef struct { const char *name; tt_tensor *tensor; } tt_named_tensor;
typedef struct { const char *key, *value; } tt_metadata;
TT_API tt_status tt_safetensors_save(const char *path, const tt_named_tensor *tensors, int n, const tt_metadata *metadata, int n_metadata, tt_error *err);
/* files.c: whole files in and out. */
typedef struct { const void *data; size_t bytes; } rt_part;
typedef struct { const uint8_t *data; size_t bytes; } rt_file;                             /* mapped, read only; data is not NULL, of an empty file too */
TT_API tt_status rt_write_file(const char *path, const void *data, size_t bytes, tt_error *err);  /* temporary, fsync, rename, fsync of the folder */
TT_API tt_status rt_write_parts(const char *path, const rt_part *parts, int n, tt_error *err);    /* the same, of pieces one after another */
enum { RT_PATH = 4096 };                                                                    /* bytes of a path, its end included: Linux takes no more */
TT_API tt_status rt_path(char path[RT_PATH], const char *dir, const char *name, tt_error *err);          /* dir/name; too long: an error */
TT_API tt_status rt_map_file(const char *path, rt_file *f, tt_error *err);
TT_API void rt_unmap_file(rt_file *f);

/* npy.c: NumPy's .npy, version 1 to 3, little-endian, C and Fortran order. */
TT_API tt_tensor *tt_npy_load(const char *path, tt_error *err);
TT_API tt_status tt_npy_save(const char *path, tt_tensor *x, tt_error *err);

/* data/dataset.c: labelled images: uint8 pixels [n,C,H,W]. "cifar10:DIR", "fashion-mnist:DIR", "mnist:DIR" (idx, raw or .gz), "shapes:COUNT"
 * (drawn: COUNT for training, a fifth of that for testing), "shape-masks:COUNT" (the same with a label for each pixel: 0 is the ground). */
typedef struct {
  const char *name;
  int64_t n, channels, height, width, n_classes;
  const uint8_t *pixels, *labels;
  float mean[4], std[4];           /* of each channel, of pixels scaled to 0..1, over the training part */
  const int32_t *tokens;           /* of a text (data/text.c), instead of images: n windows of `context` tokens, n_classes different ones */
  int64_t n_tokens, context;
  double masked;                   /* > 0: the share of tokens that is to be guessed; the others have the label -1. The last class stands for what is hidden */
  bool pixel_labels;               /* labels [n,H,W], one of each pixel; else [n] */
  const char *const *class_names;  /* [n_classes]; NULL: they have numbers alone */
} tt_dataset;
TT_API tt_dataset *tt_dataset_open(const char *what, bool train, tt_error *err);
TT_API void tt_dataset_free(tt_dataset *d);
/* data/tokenizer.c: texts as numbers 0 .. size-1, and back. tokens: "char" (also NULL): one for each character of the text; "bpe:N": byte pairs (Sennrich et al. 2016, over
 * bytes as in Radford et al. 2019) until there are N tokens, N >= 256, of which the text may have fewer. */
typedef struct tt_tokenizer tt_tokenizer;
TT_API tt_tokenizer *tt_tokenizer_train(const void *text, size_t bytes, const char *tokens, tt_error *err);
TT_API void tt_tokenizer_free(tt_tokenizer *t);
/* data/tokenizer_file.c: GPT-2's vocab.json and merges.txt in a folder, which save makes. */
TT_API tt_tokenizer *tt_tokenizer_load(const char *dir, tt_error *err);
TT_API tt_status tt_tokenizer_save(const tt_tokenizer *t, const char *dir, tt_error *err);
TT_API tt_tokenizer *tt_tokenizer_parse(const char *name, const void *vocab, size_t vocab_bytes, const void *merges, size_t merges_bytes, tt_error *err);
TT_API int64_t tt_tokenizer_size(const tt_tokenizer *t);
/* *ids: malloc'ed. A tokenizer with all 256 bytes encodes any bytes; one of characters none but those that it was made of. */
TT_API tt_status tt_tokenizer_encode(const tt_tokenizer *t, const void *text, size_t bytes, int32_t **ids, int64_t *n, tt_error *err);
TT_API const char *tt_tokenizer_token(const tt_tokenizer *t, int64_t id, size_t *bytes);   /* what it stands for, not ended by a zero; "" for no token */
/* data/text.c: a text as two data sets. what: a file, whose last tenth is to validate on; a folder with train.txt and val.txt; or "sentences:COUNT", drawn. *tokenizer:
 * the one to use, or NULL, then one is made, which is the caller's. */
typedef struct { const char *tokens; int64_t context; double masked; } tt_text_options;     /* context 0: 256; masked: as in tt_dataset */
TT_API tt_status tt_text_open(const char *what, const tt_text_options *o, tt_tokenizer **tokenizer, tt_dataset **train, tt_dataset **test, tt_error *err);
void rt_text_window(const tt_dataset *d, uint64_t seed, bool shuffle, int64_t epoch, int64_t place, int64_t sample, int32_t *x, int32_t *y);
/* The shape of a batch as models take it, and its type: images f32 [batch,C,H,W], windows of a text i32 [batch,context]. */
TT_API tt_shape tt_dataset_shape(const tt_dataset *d, int64_t batch, tt_dtype *dtype);
TT_API const char *tt_dataset_samples(const tt_dataset *d);                                /* what they are called: "images", "sequences" */
/* What the readers below give: malloc'ed, all of n checked. */
typedef struct { int64_t n, channels, height, width; uint8_t *pixels, *labels; bool pixel_labels; } rt_images;
/* data/idx.c, data/cifar.c, data/shapes.c. On failure images is empty. */
tt_status rt_idx_parse(const char *name, const uint8_t *file, size_t bytes, int rank, uint8_t **data, int64_t *dims, tt_error *err);   /* raw or gzip */
tt_status rt_idx_images(const char *dir, bool train, rt_images *images, tt_error *err);
tt_status rt_cifar10_images(const char *dir, bool train, rt_images *images, tt_error *err);
tt_status rt_shapes_images(int64_t count, bool train, bool masks, rt_images *images, tt_error *err);

/* data/augment.c: what training changes in its images; 0: nothing of that kind. */
typedef struct {
  int crop;                        /* pad by so much with zeros, take a random window */
  bool flip;                       /* left-right, each with probability 1/2 */
  double jitter;                   /* brightness, contrast and saturation, each by a factor from 1 - jitter to 1 + jitter, in this order */
  int cutout;                      /* side of a square around a random point that becomes the mean colour (DeVries & Taylor 2017) */
  double mixup;                    /* images and labels become l a + (1 - l) b, l from Beta(mixup, mixup) for each batch (Zhang et al. 2017) */
  double cutmix;                   /* a window of 1 - l of b's area goes into a, labels as of mixup (Yun et al. 2019). With mixup too, each batch has one of them */
} tt_augment;
/* "crop=4, flip, jitter=0.4, cutout=8, mixup=0.2, cutmix=1": those that are named; without a number, these. */
TT_API tt_status tt_augment_parse(const char *text, tt_augment *a, tt_error *err);
TT_API void rt_augment_text(const tt_augment *a, char *text, size_t size);                        /* the same text again, to the last bit */
tt_status rt_augment_check(const tt_augment *a, const tt_dataset *d, tt_error *err);
typedef void rt_words(void *from, uint32_t i, uint32_t out[4]);                            /* the i-th draw of four random words */
void rt_augment_jitter(float *image, int64_t channels, int64_t area, double amount, const uint32_t words[4]);      /* of pixels in 0..1 */
void rt_augment_cutout(float *image, int64_t channels, int64_t height, int64_t width, int side, const uint32_t words[4]);      /* of normalized ones */
double rt_augment_beta(double alpha, rt_words *draw, void *from, uint32_t *next);          /* a number from Beta(alpha, alpha); next: the draw to begin with, then the one after */
/* Mixes images i and B-1-i of a batch by mixup or cutmix; the share of its own label that each keeps. */
float rt_augment_mix(const tt_augment *a, float *x, int64_t batch, int64_t channels, int64_t height, int64_t width, rt_words *draw, void *from);

/* data/loader.c: shuffled, augmented, normalized batches, made by its own threads into a ring. The content of batch b of epoch e depends on
 * the seed, e and b only. */
typedef struct {
  int64_t batch;
  bool shuffle;
  tt_augment augment;
  bool drop_last;                  /* else the last batch is filled up by repeating; count tells how many are real */
  uint64_t seed;
  int n_threads;
  bool flatten;                    /* x as [batch, C*H*W] */
} tt_loader_options;                 /* of a text, augment has nothing and flatten means nothing; what fills up its last batch has labels -1 */
typedef struct tt_loader tt_loader;
/* x f32 [B,C,H,W]; y i32 [B], or [B,H,W] of a data set with labels of pixels, or f32 [B,classes] with mixup or cutmix; of a text both i32 [B,context]; borrowed until the next call. */
typedef struct { tt_tensor *x, *y; int64_t count, epoch, index; } tt_batch;
TT_API tt_loader *tt_loader_new(const tt_dataset *d, const tt_loader_options *o, tt_error *err);
TT_API void tt_loader_free(tt_loader *l);
TT_API int64_t tt_loader_batches(const tt_loader *l);                                      /* of an epoch */
TT_API void tt_loader_seek(tt_loader *l, int64_t epoch, int64_t batch);
TT_API tt_status tt_loader_next(tt_loader *l, tt_batch *b, tt_error *err);                 /* goes on into the next epoch */

/* schedule.c: learning rates; step counts from 0. */
enum { TT_MILESTONES = 8 };
typedef struct {
  const char *name;                        /* tt_schedule_name's; NULL: "constant" */
  double lr; int64_t warmup, total;        /* in the first warmup steps the rate grows from lr * warmup_start */
  int64_t step_size; double gamma;         /* step: lr * gamma^floor(step / step_size); exponential: lr * gamma^step */
  double floor, warmup_start;              /* cosine and polynomial end at floor */
  int64_t milestones[TT_MILESTONES];       /* multistep: the steps behind which there is one more factor gamma; 0 ends them */
  double power;                            /* polynomial */
  int64_t restart_factor;                  /* cosine_restarts: step_size is the first period, each next one is so many times as long (0: 1) */
  int64_t patience; double threshold;      /* plateau: when the test loss has not fallen by this share (0: 1e-4) for more than `patience` epochs, one more factor gamma, down to floor */
} tt_schedule;
TT_API double tt_schedule_at(const tt_schedule *s, int64_t step);
/* What the schedule plateau makes of the losses it is told, one an epoch: rates are tt_schedule_at times scale. It begins as {INFINITY, 1, 0}. */
typedef struct { double best, scale; int64_t bad; } tt_plateau;
TT_API void tt_schedule_measured(const tt_schedule *s, tt_plateau *p, double loss);        /* other schedules do nothing */
TT_API bool rt_schedule_wants_loss(const tt_schedule *s);
TT_API const char *tt_schedule_name(int i);          /* NULL behind the last */
TT_API bool rt_schedule_wants_total(const tt_schedule *s);   /* its rates follow from the length of training */
tt_status rt_schedule_check(const tt_schedule *s, tt_error *err);

/* metrics.c: what is measured of a data set beside loss and accuracy, every label once; labels of a text that do not count are left out. names: some of "top1, top5, perplexity,
 * confusion"; another one is an error. The object keeps what the last evaluation gave. One of scores alone: the model must give [B,classes], [B,classes,H,W] with labels of pixels, or
 * [B,T,classes] of a text, as logits or log-probabilities. */
enum { TT_METRICS = 4 };
typedef struct tt_metrics tt_metrics;
TT_API tt_metrics *tt_metrics_new(const char *names, tt_error *err);
TT_API void tt_metrics_free(tt_metrics *m);
TT_API const char *tt_metrics_name(int i);                                                 /* NULL behind the last */
/* top1, top5: the share of labels that are among the 1 or 5 largest scores (of equal ones the first come first; NaN is no right answer); perplexity: exp of the labels' mean negative
 * log-likelihood. NaN: not asked for (m NULL: nothing is), not measured yet, or no number. */
TT_API double tt_metrics_value(const tt_metrics *m, const char *name);
TT_API const int64_t *tt_metrics_confusion(const tt_metrics *m, int64_t *classes);         /* [classes, classes]: row: label; column: the largest score; borrowed; NULL: not asked for, not measured yet */
TT_API int tt_metrics_text(const tt_metrics *m, char *text, size_t size);                  /* "  top1 56.20%  perplexity 4.21": those that are numbers; as snprintf. NULL: none */
tt_status rt_metrics_begin(tt_metrics *m, int64_t classes, tt_error *err);
double *rt_metrics_scores(tt_metrics *m);                                                  /* [classes]: to be filled for each label before rt_metrics_add */
void rt_metrics_add(tt_metrics *m, int64_t label);                                         /* 0 <= label < classes */

/* train.c: data -> step -> metrics -> checkpoint. step: inputs x, y, lr: f64[], step: i64[], seed: u64[] (those it has); output "loss" f32[] or f64[]
 * (and "correct" i64[], when it has it). eval: inputs x, y; outputs "logits" [B, classes] and "loss" are used when they exist, "scores" for accuracy and metrics. */
typedef struct {
  const rt_program *step, *eval;
  const rt_program *collect;       /* with accumulate > 1: run for all batches of an update but the last */
  bool averages;                   /* step keeps NAME.ema: what is measured are those */
  int64_t accumulate;              /* batches of one update; 0: 1. step's and collect's input `step` counts batches then; an update is whole before a checkpoint or a stop */
  rt_params *params;
  rt_team *team;
  const tt_dataset *train, *test;
  tt_loader_options loader;
  tt_schedule schedule;
  tt_metrics *metrics;             /* measured with each evaluation, and logged as test_NAME; NULL: none */
  int64_t epochs, max_steps;       /* max_steps 0: no limit */
  uint64_t seed;
  const char *log;                 /* JSON lines; NULL: none */
  const char *checkpoint;          /* folder; NULL: none */
  int64_t checkpoint_every;        /* steps; 0: each epoch */
  const tt_tokenizer *tokenizer;   /* of the text: its vocab.json and merges.txt stand beside the first checkpoint. NULL: none */
  bool resume;
  const char *config;              /* text that must be equal on resume: model, optimizer, seed, CPU */
  void (*report)(void *user, const char *line, bool transient);   /* progress; NULL: silent. transient: to be overwritten */
  void *user;
  volatile int *stop;              /* set to 1 from a signal handler: finish the step, save, return TT_INTERRUPTED */
} tt_fit_options;
/* Of the last epoch; what was not measured (no "correct", no eval, no step left to do) is NaN. seconds and samples_per_second are of the
 * training steps of this call, without evaluation. */
typedef struct { double loss, train_accuracy, test_loss, test_accuracy, seconds, samples_per_second; int64_t epochs, steps; } tt_fit_result;
TT_API tt_status tt_fit(const tt_fit_options *o, tt_fit_result *r, tt_error *err);
typedef struct { double loss, accuracy; int64_t samples, correct; } tt_eval_result;
TT_API tt_status tt_evaluate(const rt_program *eval, rt_params *params, rt_team *team, const tt_dataset *test, int64_t batch, bool flatten, tt_metrics *metrics, tt_eval_result *r, tt_error *err);

/* Where a training run stands. */
typedef struct {
  int64_t epoch, batch, step;                        /* the next to be done */
  uint64_t seed;
  double loss_sum; int64_t samples, correct;         /* of the epoch so far */
  tt_plateau plateau;
  const char *config;
} rt_position;

/* evaluate.c: accuracy and mean loss over every sample once. With "logits" the loss is the cross-entropy of them, else the program's
 * "loss"; accuracy and metrics (NULL: none) are of "logits" or "scores": [B, classes], [B, classes, H, W] or, of a text, [B, T, classes]; NaN, or an error, without. */
typedef struct rt_evaluator rt_evaluator;
rt_evaluator *rt_evaluator_new(const rt_program *eval, rt_params *params, bool averages, rt_team *team, const tt_dataset *test, int64_t batch, bool flatten, tt_metrics *metrics, tt_error *err);
tt_status rt_evaluator_run(rt_evaluator *e, volatile int *stop, tt_eval_result *r, tt_error *err);
void rt_evaluator_free(rt_evaluator *e);

/* train_log.c: a line of JSON for each step and each epoch, flushed. NULL for log or report: does nothing. */
typedef struct rt_log rt_log;
rt_log *rt_log_open(const char *path, int64_t resume_step, tt_error *err);                  /* -1: a new file; else what is of steps from resume_step on is dropped */
tt_status rt_log_step(rt_log *g, const rt_position *at, double loss, double lr, double samples_per_second, tt_error *err);   /* at: after the step */
tt_status rt_log_epoch(rt_log *g, const rt_position *at, const tt_fit_result *r, const tt_metrics *metrics, tt_error *err);     /* metrics NULL: none */
void rt_log_close(rt_log *g);

/* checkpoint.c */
tt_status rt_checkpoint_save(const char *dir, rt_params *p, const rt_position *at, tt_error *err);
tt_status rt_checkpoint_load(const char *dir, rt_params *p, rt_position *at, tt_error *err);   /* config is checked against at->config */

/* machine.c: what `tinytorch info` measures; compilation reads none of these figures. */
TT_API double rt_machine_peak_f32(rt_team *team);     /* FLOP/s: f32 multiply-adds with one operand from L1, the whole team; takes about 50 ms */
/* The same in samples of about 4 ms, to be spread over a longer run: that peak, or the bytes a second that the team moves together over
 * `bytes` of memory: read, or read and written of a copy of half of them to the other half (the better of two ways to store). */
typedef enum { RT_METER_FMA, RT_METER_READ, RT_METER_COPY } rt_meter_kind;
typedef struct rt_meter rt_meter;
TT_API rt_meter *rt_meter_new(rt_meter_kind kind, size_t bytes, rt_team *team, tt_error *err);    /* bytes: of FMA, of the widest vectors to use; 0: any */
TT_API double rt_meter_sample(rt_meter *m);
TT_API void rt_meter_free(rt_meter *m);
TT_API void rt_machine_report(rt_team *team, void (*line)(void *user, const char *text), void *user);

#ifdef __cplusplus
}
#endif
#endif
