/* data.c: what --data names: images or a text, as the model takes them; and the model's input when nothing is named. */
#include <string.h>

#include "options.h"

/* A text's tokenizer is learned from it, unless --tokens names a folder that holds one. */
static bool open_text(const cli_args *a, const model_info *info, cli_data *d, tt_error *err) {
  const char *what = cli_get(a, "data", info->demo), *tokens = cli_get(a, "tokens", "char");
  bool learned = !strcmp(tokens, "char") || !strncmp(tokens, "bpe:", 4);
  if (!learned && !(d->tokenizer = tt_tokenizer_load(tokens, err))) return false;
  return tt_text_open(what, &(tt_text_options){.tokens = tokens, .context = info->context, .masked = info->masked}, &d->tokenizer, &d->train, &d->test, err) == TT_OK;
}

bool cli_data_open(const cli_args *a, const model_info *info, bool train, cli_data *d, tt_error *err) {
  *d = (cli_data){0};
  const char *what = cli_get(a, "data", NULL);
  bool ok = info->context ? open_text(a, info, d, err) : (!train || (d->train = tt_dataset_open(what, true, err))) && (d->test = tt_dataset_open(what, false, err));
  if (ok && !info->context && !info->sample && d->test->pixel_labels != info->pixels) {
    ok = false;
    tt_fail(err, TT_INVALID, "error: %s learns %s, %s has %s\n  at --data %s\n  fix: give %s", info->name, info->pixels ? "a label for each pixel" : "one label an image", d->test->name,
            info->pixels ? "one an image" : "one for each pixel", what, info->pixels ? "shape-masks:COUNT" : "another data set, such as shapes:COUNT");
  }
  if (!ok) cli_data_free(d);
  return ok;
}

void cli_data_free(cli_data *d) {
  tt_dataset_free(d->train);
  tt_dataset_free(d->test);
  tt_tokenizer_free(d->tokenizer);
  *d = (cli_data){0};
}

bool cli_input(const cli_args *a, const model_info *info, int64_t batch, model_config *arg, tt_dtype *dtype, tt_shape *shape, tt_error *err) {
  *arg = (model_config){.classes = info->classes ? info->classes : 10};
  *shape = model_input(info, batch, dtype);
  if (!cli_has(a, "data")) return true;
  cli_data d;
  if (!cli_data_open(a, info, false, &d, err)) return false;
  *shape = tt_dataset_shape(d.test, batch, dtype), arg->classes = d.test->n_classes;
  cli_data_free(&d);
  return true;
}
