/* options.h: the options that train, eval, dump and bench share, and what they mean. */
#ifndef TT_CLI_OPTIONS_H
#define TT_CLI_OPTIONS_H

#include "../models/models.h"
#include "cli.h"

#define CLI_BACKEND {"backend", "jit|interp", "machine code, or plain C op by op (default jit)"}
#define CLI_THREADS {"threads", "N", "default: TT_NUM_THREADS, else as many as this process may use"}
#define CLI_CPU {"cpu", "NAME", "compile for x86-64-v2, x86-64-v3, x86-64-v4, x86-64-v4+bf16, x86-64-v4+amx or native (default: TT_CPU, else native)"}
#define CLI_TUNED {"tuned", "FILE", "plans that tinytorch tune measured, or none (default: the file that tune writes, where it is)"}
#define CLI_PRODUCTS \
  {"dtype", "f32|bf16", "bf16: mixed precision, products of operands rounded to bf16; sums and weights stay f32"}, \
  {"matmul-precision", "f32|bf16x6", "bf16x6: f32 products as six bf16 ones each, as exact; for CPUs with AMX"}
#define CLI_MUON_GROUPS "ndim!=2: adamw lr_scale=0.1"
#define CLI_UPDATE \
  {"optimizer", "NAME", "a row of passes/optim.def: sgd, adam, adamw ... (default: the model's)"}, \
  {"hyper", "\"k=v, ...\"", "its hyperparameters, such as \"momentum=0.9, weight_decay=5e-4\""}, \
  {"groups", "\"P: NAME k=v; ...\"", "parameters with an optimizer of their own, or frozen: \"ndim<2: adamw lr_scale=0.1; fc1: frozen\" (default of muon: " CLI_MUON_GROUPS ")"}, \
  {"no-decay-norm-bias", NULL, "no weight decay of biases and norms"}, \
  {"clip-norm", "X", "scale gradients to this global norm at most"}
#define CLI_SKIP {"skip", "a,b", "optional passes left out"}
#define CLI_NO_EMA {"no-ema", NULL, "of a checkpoint trained with --ema the weights themselves, not their running means"}
#define CLI_BUDGET {"memory-budget", "BYTES", "the most that the step may need, such as 50MiB: values are computed again instead of kept"}
#define CLI_DATA {"data", "SET:DIR", "cifar10:DIR, fashion-mnist:DIR, mnist:DIR, or shapes:COUNT (drawn, needs no files); for unet shape-masks:COUNT; for models of text: a file, a folder with train.txt and val.txt, or sentences:COUNT (drawn)"}
#define CLI_METRICS {"metrics", "NAME,...", "of all of the test part: some of top1, top5, perplexity, confusion"}
#define CLI_TOKENS {"tokens", "char|bpe:N|DIR", "of a text: its characters (default), N byte pairs learned from it, or a folder with vocab.json and merges.txt"}

/* A row of the table of models, or NULL after saying which names are valid. */
const model_info *cli_model(const char *name);
/* What --data names, as the model takes it. train false: the part to test on alone, of images. */
typedef struct { tt_dataset *train, *test; tt_tokenizer *tokenizer; } cli_data;
bool cli_data_open(const cli_args *a, const model_info *info, bool train, cli_data *d, tt_error *err);
void cli_data_free(cli_data *d);
/* The type and shape of a batch and the number of classes: of --data, else the model's usual ones. */
bool cli_input(const cli_args *a, const model_info *info, int64_t batch, model_config *arg, tt_dtype *dtype, tt_shape *shape, tt_error *err);
/* The model, as the options ask. arg must outlive it. NULL: err, or (when err is not set) a wrong option has been reported already. */
tt_model *cli_model_new(const cli_args *a, const model_info *info, model_config *arg, tt_error *err);
/* What a file of the model's weights (path; NULL: none is given) says about its sizes, where they are not fixed, goes into arg and info's context. */
bool cli_sizes(model_info *info, const char *path, model_config *arg, tt_error *err);
/* n classes (of a data set, or tokens) go into arg; weights with sizes of their own must know as many. */
bool cli_classes(int64_t n, model_config *arg, tt_error *err);
const char *cli_products(const cli_args *a);      /* what --dtype and --matmul-precision say, as in tt_compile_options */
void cli_warnings(const tt_model *m);       /* printed on stderr */
/* metrics.c: what --metrics names, NULL when it is not given; false: err. What was measured as a table, where there is one. */
bool cli_metrics(const cli_args *a, tt_metrics **m, tt_error *err);
void cli_print_metrics(const tt_metrics *m, const cli_data *data);
/* update.c: what CLI_UPDATE's options say, texts of which stay in it. false: it has been said what is wrong. */
typedef struct { const char *optimizer, *hyper; double clip_norm; bool no_decay_norm_bias; tt_param_group groups[8]; char text[1000]; } cli_update;
bool cli_update_read(const cli_args *a, const model_info *info, cli_update *u);
void cli_update_put(const cli_update *u, tt_compile_options *o);

#endif
