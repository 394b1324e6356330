/* metrics.c: --metrics of train and eval: what was measured as the end of a line, and the confusion matrix as a table with the classes' names. */
#include <string.h>

#include "options.h"

bool cli_metrics(const cli_args *a, tt_metrics **m, tt_error *err) {
  const char *names = cli_get(a, "metrics", NULL);
  *m = names ? tt_metrics_new(names, err) : NULL;
  return !names || *m;
}

enum { NAME_BYTES = 64 };

/* A class as it is to be printed: its name, its token with anything unprintable as \xNN, or its number. */
static void class_name(const cli_data *data, int64_t c, char text[NAME_BYTES]) {
  const tt_dataset *d = data->test;
  size_t bytes = 0, n = 0;
  const char *token = data->tokenizer ? tt_tokenizer_token(data->tokenizer, c, &bytes) : NULL;
  if (token && bytes) {
    for (size_t i = 0; i < bytes && n + 5 < NAME_BYTES; i++) n += (size_t)snprintf(text + n, NAME_BYTES - n, token[i] > ' ' && token[i] <= '~' ? "%c" : "\\x%02x", (unsigned char)token[i]);
  } else if (d->class_names && c < d->n_classes) snprintf(text, NAME_BYTES, "%s", d->class_names[c]);
  else snprintf(text, NAME_BYTES, "%lld", (long long)c);
}

void cli_print_metrics(const tt_metrics *m, const cli_data *data) {
  int64_t n;
  const int64_t *confusion = m ? tt_metrics_confusion(m, &n) : NULL;
  if (!confusion) return;
  int width = 0;
  char name[NAME_BYTES];
  for (int64_t c = 0; c < n; c++) {
    class_name(data, c, name);
    if ((int)strlen(name) > width) width = (int)strlen(name);
  }
  printf("confusion: a row for each label, a column for each prediction\n%*s", width, "");
  for (int64_t k = 0; k < n; k++) {
    class_name(data, k, name);
    printf("  %*s", (int)strlen(name) < 5 ? 5 : (int)strlen(name), name);
  }
  printf("\n");
  for (int64_t c = 0; c < n; c++) {
    class_name(data, c, name);
    printf("%*s", width, name);
    for (int64_t k = 0; k < n; k++) {
      class_name(data, k, name);
      printf("  %*lld", (int)strlen(name) < 5 ? 5 : (int)strlen(name), (long long)confusion[c * n + k]);
    }
    printf("\n");
  }
}
