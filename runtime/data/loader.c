/* loader.c: batches made ahead of time by threads of their own.
 *
 * Batches of all epochs have one number, and the ring has a place for each of the next few (more of them when batches are small). A
 * thread takes the next number whose place is free, fills it without the lock, and marks it ready; the caller takes numbers in order, and
 * needs the lock only when it must wait, or wake a thread: once for each half of the ring. So a step of a microsecond waits for no lock. What is in a batch depends on
 * seed, epoch and batch only, because nothing is drawn in sequence: the order of an epoch is a keyed permutation that can be
 * asked for any place, and what augmentation draws are Philox words of the sample's or the batch's place. So seeking is setting a number, the number of
 * threads changes nothing, and training that resumes sees what it would have seen. */
#define _GNU_SOURCE
#include "../runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_RING = 64, SMALL_BYTES = 256 << 10 };          /* places of small batches, which take so many bytes at most */
enum { STREAM_ORDER = 0x6f726465, STREAM_AUGMENT = 0x6175676d, STREAM_JITTER = 0x6a697474, STREAM_CUTOUT = 0x6375746f, STREAM_MIX = 0x6d697875, ROUNDS = 6 };

typedef enum { FREE, FILLING, READY, HELD } state;
typedef struct { tt_tensor *x, *y; _Atomic state state; int64_t number, count; } place;      /* READY: whoever reads that may read the rest */

struct tt_loader {
  tt_dataset d;
  tt_loader_options o;
  int64_t n_batches;
  uint64_t columns;                /* about the square root of the number of samples */
  float table[4][256];             /* of each channel: byte to normalized number; to 0..1 where colours are changed before that */
  place *ring;
  int n_places, n_threads;
  pthread_t *threads;
  pthread_mutex_t lock;
  pthread_cond_t work, done;       /* a place became free or the position moved; a place became ready */
  int64_t next_taken, next_given;  /* numbers: for a thread, for the caller */
  int64_t held;                    /* place of the batch that the caller has; -1: none */
  uint64_t seeks;                  /* what was begun before a seek is dropped */
  atomic_int idle;                 /* threads that wait for a free place */
  bool waiting;                    /* the caller waits for a batch */
  int freed;                       /* places since the threads were woken */
  bool quit;
};

static void words(const tt_loader *l, int64_t epoch, uint32_t stream, uint64_t i, uint32_t out[4]) {
  tt_philox(10, (uint32_t[4]){(uint32_t)i, (uint32_t)(i >> 32), (uint32_t)epoch, stream}, (uint32_t[2]){(uint32_t)l->o.seed, (uint32_t)(l->o.seed >> 32)}, out);
}
static uint32_t word(const tt_loader *l, int64_t epoch, uint32_t stream, uint64_t i) {
  uint32_t out[4];
  words(l, epoch, stream, i, out);
  return out[0];
}

/* Sample at place p of an epoch: a Feistel network over pairs (left, right) of left < rows, right < columns, which permutes
 * 0 .. rows*columns-1; what falls beyond n, a row at most, goes through it again. */
static int64_t shuffled(const tt_loader *l, int64_t epoch, int64_t p) {
  uint64_t n = (uint64_t)l->d.n, columns = l->columns, rows = (n - 1) / columns + 1, v = (uint64_t)p;
  do {
    uint64_t left = v / columns, right = v % columns;
    for (uint64_t round = 0; round < ROUNDS; round += 2) {
      left = (left + word(l, epoch, STREAM_ORDER, round << 32 | right)) % rows;
      right = (right + word(l, epoch, STREAM_ORDER, (round + 1) << 32 | left)) % columns;
    }
    v = left * columns + right;
  } while (v >= n);
  return (int64_t)v;
}

/* The window of a picture that a sample shows, and whether mirrored. */
typedef struct { int64_t dy, dx, left, right; bool flip; } window;      /* left .. right: the columns that show the picture; elsewhere it is padded */

static window window_of(const tt_loader *l, int64_t epoch, int64_t p) {
  window v = {0};
  int64_t pad = l->o.augment.crop, w = l->d.width;
  if (pad || l->o.augment.flip) {
    uint32_t a = word(l, epoch, STREAM_AUGMENT, 2 * (uint64_t)p), b = word(l, epoch, STREAM_AUGMENT, 2 * (uint64_t)p + 1);
    v.dy = (int64_t)(a % (uint32_t)(2 * pad + 1)) - pad;
    v.dx = (int64_t)(b % (uint32_t)(2 * pad + 1)) - pad;
    v.flip = l->o.augment.flip && a >> 31;
  }
  v.left = v.flip ? v.dx : -v.dx, v.right = w + v.left;
  if (v.left < 0) v.left = 0;
  if (v.right > w) v.right = w;
  return v;
}

/* to[H][W] = table[from[y + dy][x + dx]], and of 0 outside the picture. */
#define COPY(to_, from_, table)                                                                                    \
  for (int64_t y = 0; y < h; y++, to_ += w) {                                                                      \
    bool row = y + v.dy >= 0 && y + v.dy < h;                                                                      \
    const uint8_t *line = from_ + (row ? (y + v.dy) * w : 0);                                                      \
    int64_t x = 0, stop = row ? v.right : 0;                                                                       \
    for (; x < (row ? v.left : w); x++) to_[x] = table(0);                                                         \
    if (v.flip)                                                                                                    \
      for (; x < stop; x++) to_[x] = table(line[w - 1 - x + v.dx]);                                                \
    else                                                                                                           \
      for (; x < stop; x++) to_[x] = table(line[x + v.dx]);                                                        \
    for (; x < w; x++) to_[x] = table(0);                                                                          \
  }

static void copy_image(const tt_loader *l, window v, int64_t sample, int64_t epoch, int64_t p, float *image) {
  int64_t h = l->d.height, w = l->d.width, channels = l->d.channels;
  uint32_t draw[4];
  float *to = image;
  for (int64_t c = 0; c < channels; c++) {
    const uint8_t *from = l->d.pixels + (sample * channels + c) * h * w;
    const float *table = l->table[c];
#define LOOK_UP(byte) table[byte]
    COPY(to, from, LOOK_UP)
#undef LOOK_UP
  }
  if (l->o.augment.jitter > 0) {
    words(l, epoch, STREAM_JITTER, (uint64_t)p, draw);
    rt_augment_jitter(image, channels, h * w, l->o.augment.jitter, draw);
    for (int64_t c = 0; c < channels; c++)
      for (int64_t i = 0; i < h * w; i++) image[c * h * w + i] = (image[c * h * w + i] - l->d.mean[c]) / l->d.std[c];
  }
  if (l->o.augment.cutout) {
    words(l, epoch, STREAM_CUTOUT, (uint64_t)p, draw);
    rt_augment_cutout(image, channels, h, w, l->o.augment.cutout, draw);
  }
}

static void fill_windows(const tt_loader *l, place *q, int64_t epoch, int64_t first) {
  int32_t *x = tt_tensor_data(q->x), *y = tt_tensor_data(q->y);
  int64_t width = l->d.context;
  q->count = l->d.n - first < l->o.batch ? l->d.n - first : l->o.batch;
  for (int64_t i = 0; i < l->o.batch; i++) {
    int64_t p = (first + i) % l->d.n;
    rt_text_window(&l->d, l->o.seed, l->o.shuffle, epoch, p, l->o.shuffle ? shuffled(l, epoch, p) : p, x + i * width, y + i * width);
    if (i >= q->count) memset(y + i * width, 0xff, (size_t)width * sizeof *y);
  }
}

static void copy_labels(const tt_loader *l, window v, int64_t sample, int32_t *to) {
  int64_t h = l->d.height, w = l->d.width;
  const uint8_t *from = l->d.labels + sample * h * w;
#define SAME(byte) (byte)
  COPY(to, from, SAME)
#undef SAME
}

typedef struct { const tt_loader *l; int64_t epoch, batch; } mix_source;
static void mix_words(void *from, uint32_t i, uint32_t out[4]) {
  const mix_source *m = from;
  words(m->l, m->epoch, STREAM_MIX, (uint64_t)m->batch << 16 | i, out);
}

static bool soft(const tt_loader_options *o) { return o->augment.mixup > 0 || o->augment.cutmix > 0; }

static void fill(const tt_loader *l, place *q) {
  int64_t epoch = q->number / l->n_batches, index = q->number % l->n_batches, first = index * l->o.batch, n = l->o.batch, classes = l->d.n_classes;
  int64_t area = l->d.height * l->d.width, size = l->d.channels * area;
  float *x = tt_tensor_data(q->x), *shares = tt_tensor_data(q->y);
  int32_t *y = tt_tensor_data(q->y);
  if (l->d.tokens) return fill_windows(l, q, epoch, first);
  bool mixed = soft(&l->o);
  q->count = l->d.n - first < n ? l->d.n - first : n;
  if (mixed) memset(shares, 0, (size_t)(n * classes) * sizeof *shares);
  for (int64_t i = 0; i < n; i++) {
    int64_t p = (first + i) % l->d.n, sample = l->o.shuffle ? shuffled(l, epoch, p) : p;
    window v = window_of(l, epoch, first + i);
    copy_image(l, v, sample, epoch, first + i, x + i * size);
    if (mixed) shares[i * classes + l->d.labels[sample]] = 1;
    else if (l->d.pixel_labels) copy_labels(l, v, sample, y + i * area);
    else y[i] = l->d.labels[sample];
  }
  if (!mixed) return;
  float keep = rt_augment_mix(&l->o.augment, x, n, l->d.channels, l->d.height, l->d.width, mix_words, &(mix_source){l, epoch, index});
  for (int64_t i = 0; i < n / 2; i++)
    for (int64_t c = 0; c < classes; c++) {
      float *p = &shares[i * classes + c], *r = &shares[(n - 1 - i) * classes + c], a = *p, b = *r;
      *p = keep * a + (1 - keep) * b, *r = keep * b + (1 - keep) * a;
    }
}

static void *work(void *arg) {
  tt_loader *l = arg;
  pthread_mutex_lock(&l->lock);
  for (;;) {
    place *q = &l->ring[l->next_taken % l->n_places];
    if (l->quit) break;
    if (atomic_load_explicit(&q->state, memory_order_acquire) != FREE) {
      l->idle++;
      pthread_cond_wait(&l->work, &l->lock);
      l->idle--;
      continue;
    }
    uint64_t seeks = l->seeks;
    q->state = FILLING;
    q->number = l->next_taken++;
    pthread_mutex_unlock(&l->lock);
    fill(l, q);
    pthread_mutex_lock(&l->lock);
    bool ready = seeks == l->seeks;
    atomic_store_explicit(&q->state, ready ? READY : FREE, memory_order_release);
    if (!ready) pthread_cond_broadcast(&l->work);
    else if (l->waiting) pthread_cond_signal(&l->done);
  }
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

static tt_status check(const tt_dataset *d, const tt_loader_options *o, tt_error *err) {
  if (!d->tokens && (d->channels < 1 || d->channels > 4 || d->n < 1)) return tt_fail(err, TT_INVALID, "error: a loader wants at least one image of 1 to 4 channels, not %lld of %lld\n  at data set %s\n  fix: open another data set", (long long)d->n, (long long)d->channels, d->name);
  if (o->batch < 1 || (o->drop_last && o->batch > d->n)) return tt_fail(err, TT_INVALID, "error: batches of %lld cannot be made of %lld samples\n  at data set %s\n  fix: choose a batch of 1 to %lld, or do not drop the last one", (long long)o->batch, (long long)d->n, d->name, (long long)d->n);
  if (rt_augment_check(&o->augment, d, err) != TT_OK) return err->status;
  if (o->n_threads < 0 || o->n_threads > 256) return tt_fail(err, TT_INVALID, "error: a loader of %d threads\n  at data set %s\n  fix: use 1 to 256, or 0 for one", o->n_threads, d->name);
  return TT_OK;
}

static bool make_places(tt_loader *l, tt_error *err) {
  tt_dtype dtype;
  tt_shape x = tt_dataset_shape(&l->d, l->o.batch, &dtype), labels = {1, {l->o.batch}};
  if (l->o.flatten && !l->d.tokens) x = (tt_shape){2, {l->o.batch, l->d.channels * l->d.height * l->d.width}};
  if (l->d.tokens) labels = x;
  else if (soft(&l->o)) labels = (tt_shape){2, {l->o.batch, l->d.n_classes}};
  else if (l->d.pixel_labels) labels = (tt_shape){3, {l->o.batch, l->d.height, l->d.width}};
  for (int i = 0; i < l->n_places; i++) {
    l->ring[i].x = tt_tensor_new(dtype, &x, err);
    l->ring[i].y = l->ring[i].x ? tt_tensor_new(soft(&l->o) ? TT_F32 : TT_I32, &labels, err) : NULL;
    if (!l->ring[i].y) return false;
  }
  return true;
}

tt_loader *tt_loader_new(const tt_dataset *d, const tt_loader_options *o, tt_error *err) {
  if (check(d, o, err) != TT_OK) return NULL;
  tt_loader *l = calloc(1, sizeof *l);
  int n_threads = o->n_threads ? o->n_threads : 1;
  if (l) {
    l->d = *d;
    l->o = *o;
    l->held = -1;
    for (l->columns = 1; l->columns * l->columns < (uint64_t)d->n;) l->columns++;
    l->n_batches = o->drop_last ? d->n / o->batch : (d->n - 1) / o->batch + 1;
    int64_t bytes = o->batch * (d->tokens ? 2 * d->context : d->channels * d->height * d->width + 1) * 4;
    l->n_places = bytes * SMALL_RING <= SMALL_BYTES ? SMALL_RING : (int)(SMALL_BYTES / bytes);
    if (l->n_places < n_threads + 2) l->n_places = n_threads + 2;      /* one held, one being waited for, one for each thread */
    l->ring = calloc((size_t)l->n_places, sizeof *l->ring);
    l->threads = calloc((size_t)n_threads, sizeof *l->threads);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    for (int64_t c = 0; c < d->channels; c++)
      for (int v = 0; v < 256; v++) l->table[c][v] = o->augment.jitter > 0 ? (float)v / 255 : ((float)v / 255 - d->mean[c]) / d->std[c];
  }
  if (!l || !l->ring || !l->threads) {
    tt_fail(err, TT_NO_MEMORY, "error: no memory for a loader\n  at data set %s\n  fix: use a machine with more memory", d->name);
    tt_loader_free(l);
    return NULL;
  }
  if (!make_places(l, err)) {
    tt_loader_free(l);
    return NULL;
  }
  for (; l->n_threads < n_threads; l->n_threads++) {
    int failure = pthread_create(&l->threads[l->n_threads], NULL, work, l);
    if (!failure) continue;
    tt_fail(err, TT_NO_MEMORY, "error: thread %d of a loader could not be started: %s\n  at data set %s\n  fix: use fewer loader threads, or raise the limit (ulimit -u)", l->n_threads, strerror(failure), d->name);
    tt_loader_free(l);
    return NULL;
  }
  return l;
}

void tt_loader_free(tt_loader *l) {
  if (!l) return;
  pthread_mutex_lock(&l->lock);
  l->quit = true;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
  for (int i = 0; i < l->n_threads; i++) pthread_join(l->threads[i], NULL);
  for (int i = 0; l->ring && i < l->n_places; i++) {
    tt_tensor_free(l->ring[i].x);
    tt_tensor_free(l->ring[i].y);
  }
  pthread_cond_destroy(&l->done);
  pthread_cond_destroy(&l->work);
  pthread_mutex_destroy(&l->lock);
  free(l->threads);
  free(l->ring);
  free(l);
}

int64_t tt_loader_batches(const tt_loader *l) { return l->n_batches; }

void tt_loader_seek(tt_loader *l, int64_t epoch, int64_t batch) {
  pthread_mutex_lock(&l->lock);
  l->seeks++;
  l->next_taken = l->next_given = (epoch < 0 ? 0 : epoch) * l->n_batches + (batch < 0 ? 0 : batch);
  for (int i = 0; i < l->n_places; i++)
    if (l->ring[i].state == READY) l->ring[i].state = FREE;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
}

tt_status tt_loader_next(tt_loader *l, tt_batch *b, tt_error *err) {
  (void)err;                       /* data is checked when it is opened: making a batch cannot fail */
  bool wake = false;
  if (l->held >= 0) {
    atomic_store_explicit(&l->ring[l->held].state, FREE, memory_order_release);
    wake = ++l->freed >= l->n_places / 2 && l->idle;
  }
  l->held = l->next_given % l->n_places;
  place *q = &l->ring[l->held];
  if (wake || atomic_load_explicit(&q->state, memory_order_acquire) != READY) {
    pthread_mutex_lock(&l->lock);
    pthread_cond_broadcast(&l->work);                    /* a thread that saw no free place a moment ago sleeps until here */
    l->freed = 0;
    l->waiting = true;
    while (q->state != READY) pthread_cond_wait(&l->done, &l->lock);
    l->waiting = false;
    pthread_mutex_unlock(&l->lock);
  }
  atomic_store_explicit(&q->state, HELD, memory_order_relaxed);
  l->next_given++;
  *b = (tt_batch){q->x, q->y, q->count, q->number / l->n_batches, q->number % l->n_batches};
  return TT_OK;
}
