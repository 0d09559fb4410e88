// Attention over the threads: tiles of queries that share a kv head, whole or cut into splits.
//
//     queries of one sequence and kv head, row by row:   | row 0: g0 g1 g2 | row 1: g0 g1 g2 | ...
//     cut into tiles of kMaxQueries at most; a tile's splits merge in index order, whoever computed them.
//
// Scratch is one split a worker, and where splits are shared out some splits a worker: never the whole context.
#include <algorithm>
#include <cstring>

#include "device.h"
#include "turn.h"

namespace openwork {

struct AttendJob {
  const Cache& cache;
  std::int64_t layer;
  const StepRows& rows;
  const Attention& w;
  const char* q;  // (kv_heads, rows, group) prepared heads
  std::ptrdiff_t stride;
  float* out;  // (rows, num_heads * head_dim)
  int group;
  int padded_dim;

  std::int32_t position(std::int64_t row) const { return rows.positions[static_cast<std::size_t>(row)]; }
  std::int64_t start(int sequence) const { return rows.starts[static_cast<std::size_t>(sequence)]; }
  std::int32_t lowest(std::int64_t row) const { return w.window == 0 ? 0 : std::max(0, position(row) - w.window + 1); }
};

// Queries first .. first + count - 1 of a sequence and kv head.
struct AttendTile {
  int sequence, head;
  std::int64_t first;
  int count;

  std::int64_t row(const AttendJob& job, int query) const { return job.start(sequence) + (first + query) / job.group; }
  std::int64_t first_split(const AttendJob& job) const { return job.lowest(row(job, 0)) / kSplit; }
  std::int64_t last_split(const AttendJob& job) const { return job.position(row(job, count - 1)) / kSplit; }

  KeysValues keys_values(const AttendJob& job) const {
    const Cache& c = job.cache;
    return {c.number,
            c.keys_of(job.layer, 0, head),
            c.values_of(job.layer, 0, head),
            c.key_bytes() * c.kv_heads,
            c.value_bytes() * c.kv_heads,
            c.key_tile(),
            c.value_tile(),
            job.rows.table(sequence),
            c.block_size,
            c.head_dim,
            job.w.scale,
            job.w.softcap};
  }

  void queries(const AttendJob& job, Queries& out) const {
    out.q = job.q + ((head * job.rows.count() + job.start(sequence)) * job.group + first) * job.stride;
    out.q_stride = job.stride;
    out.count = count;
    for (int i = 0; i < count; i++) {
      out.first[i] = job.lowest(row(job, i));
      out.last[i] = job.position(row(job, i));
    }
  }
};

namespace {

constexpr std::int64_t kSlotWork = 8;  // what a head costs beside as many numbers elsewhere: its slot is in no cache
constexpr std::ptrdiff_t kLine = 64;
constexpr std::int64_t kWave = 4;  // splits in flight for each worker, where splits are shared out

// Whole cache lines, kMaxQueries being a multiple of eight.
std::int64_t mixture_bytes(int padded_dim) { return 4 * kMaxQueries * std::int64_t{2 + padded_dim}; }

Mixture mixture_at(char* memory) {
  float* floats = reinterpret_cast<float*>(memory);
  return {floats, floats + kMaxQueries, floats + 2 * kMaxQueries};
}

// The queries that see a key of this split: a run, because both ends of what they see ascend.
Share active(const Queries& queries, std::int64_t split) {
  std::int64_t begin = 0;
  while (begin < queries.count && queries.last[begin] < split * kSplit) begin++;
  std::int64_t end = begin;
  while (end < queries.count && queries.first[end] < (split + 1) * kSplit) end++;
  return {begin, end};
}

void attend_split(const Kernels& kernels, const KeysValues& kv, const Queries& queries, std::int64_t split,
                  const Ahead& next, void* scratch, const Mixture& part) {
  const Share run = active(queries, split);
  if (run.begin < run.end)
    kernels.attend(kv, queries, static_cast<int>(run.begin), static_cast<int>(run.end), split, next, scratch, part);
}

// The part of a tile's keys that lies in one split.
Ahead part_of(const AttendJob& job, const AttendTile& tile, const KeysValues& kv, std::int64_t split) {
  const std::int64_t lowest = job.lowest(tile.row(job, 0)), highest = job.position(tile.row(job, tile.count - 1));
  return {&kv, std::max(lowest, split * kSplit), std::min(highest, (split + 1) * kSplit - 1)};
}

// The total of each query, and then this split; a query's first split is its total.
void take_in(const Kernels& kernels, const Queries& queries, std::int64_t split, int padded_dim, const Mixture& total,
             const Mixture& part) {
  const Share run = active(queries, split);
  for (int i = static_cast<int>(run.begin); i < run.end; i++) {
    if (queries.first[i] / kSplit != split) {
      kernels.merge(total, part, i, padded_dim);
      continue;
    }
    total.high[i] = part.high[i];
    total.mass[i] = part.mass[i];
    std::memcpy(total.mixed + i * padded_dim, part.mixed + i * padded_dim, sizeof(float) * padded_dim);
  }
}

void finish(const Kernels& kernels, const AttendJob& job, const AttendTile& tile, const Mixture& total) {
  for (int i = 0; i < tile.count; i++) {
    const std::int64_t head = tile.head * job.group + (tile.first + i) % job.group;
    kernels.finish(total, i, job.w.head_dim, job.out + (tile.row(job, i) * job.w.num_heads + head) * job.w.head_dim);
  }
}

std::vector<AttendTile> cut_into_tiles(const AttendJob& job) {
  std::vector<AttendTile> tiles;
  for (int s = 0; s < job.rows.sequences(); s++) {
    const std::int64_t queries = (job.start(s + 1) - job.start(s)) * job.group;
    for (int head = 0; head < job.w.num_kv_heads; head++)  // tiles of a head follow each other: its keys stay in cache
      for (std::int64_t first = 0; first < queries; first += kMaxQueries)
        tiles.push_back({s, head, first, static_cast<int>(std::min<std::int64_t>(kMaxQueries, queries - first))});
  }
  return tiles;
}

}  // namespace

// Every tile by one worker; the tiles are cut where the keys to be read are halved, or thirded.
void Device::attend_whole(const std::vector<AttendTile>& tiles, const AttendJob& job) {
  std::vector<std::int64_t> cost(tiles.size() + 1);
  for (std::size_t i = 0; i < tiles.size(); i++) {
    const std::int64_t splits = tiles[i].last_split(job) - tiles[i].first_split(job) + 1;
    cost[i + 1] = cost[i] + splits * (8 + tiles[i].count);
  }
  const std::int64_t scratch = kernels_.scratch_bytes(job.cache.number, job.w.head_dim), all = cost.back();
  const std::int64_t size = scratch + 2 * mixture_bytes(job.padded_dim);
  char* memory = workers_.take<char>(size * pool_.threads());
  split(all, 1, all * kSplit * job.padded_dim / 8, [&](std::int64_t begin, std::int64_t end, int worker) {
    char* own = memory + worker * size;
    const Mixture total = mixture_at(own + scratch), part = mixture_at(own + scratch + mixture_bytes(job.padded_dim));
    Queries queries;
    for (std::size_t i = 0; i < tiles.size(); i++) {
      if (cost[i] < begin || cost[i] >= end) continue;
      tiles[i].queries(job, queries);
      const std::size_t after = i + 1 < tiles.size() ? i + 1 : i;
      const KeysValues kv = tiles[i].keys_values(job), next_kv = tiles[after].keys_values(job);
      for (std::int64_t s = tiles[i].first_split(job); s <= tiles[i].last_split(job); s++) {
        const Ahead next = s < tiles[i].last_split(job)
                               ? part_of(job, tiles[i], kv, s + 1)
                               : part_of(job, tiles[after], next_kv, tiles[after].first_split(job));
        attend_split(kernels_, kv, queries, s, next, own, part);
        take_in(kernels_, queries, s, job.padded_dim, total, part);
      }
      finish(kernels_, job, tiles[i], total);
    }
  });
}

// Few tiles and many keys: the splits are shared out, some at a time, and merged after each such wave.
void Device::attend_in_splits(const std::vector<AttendTile>& tiles, const AttendJob& job) {
  const auto count = static_cast<std::int64_t>(tiles.size());
  const std::int64_t width = (kWave * pool_.threads() + count - 1) / count, size = mixture_bytes(job.padded_dim);
  char* totals = totals_.take<char>(count * (width + 1) * size);
  char* parts = totals + count * size;
  const std::int64_t scratch = kernels_.scratch_bytes(job.cache.number, job.w.head_dim);
  char* memory = workers_.take<char>(scratch * pool_.threads());
  std::int64_t longest = 0;
  for (const AttendTile& tile : tiles) longest = std::max(longest, tile.last_split(job) - tile.first_split(job) + 1);
  for (std::int64_t wave = 0; wave < longest; wave += width) {
    split(count * width, 1, kWorthSharing, [&](std::int64_t begin, std::int64_t end, int worker) {
      Queries queries;
      for (std::int64_t i = begin; i < end; i++) {
        const AttendTile& tile = tiles[static_cast<std::size_t>(i / width)];
        const std::int64_t s = tile.first_split(job) + wave + i % width;
        if (s > tile.last_split(job)) continue;
        tile.queries(job, queries);
        const KeysValues kv = tile.keys_values(job);
        const Ahead next = s < tile.last_split(job) ? part_of(job, tile, kv, s + 1) : Ahead{};
        attend_split(kernels_, kv, queries, s, next, memory + worker * scratch, mixture_at(parts + i * size));
      }
    });
    Queries queries;
    for (std::int64_t i = 0; i < count * width; i++) {
      const AttendTile& tile = tiles[static_cast<std::size_t>(i / width)];
      const std::int64_t s = tile.first_split(job) + wave + i % width;
      if (s > tile.last_split(job)) continue;
      tile.queries(job, queries);
      take_in(kernels_, queries, s, job.padded_dim, mixture_at(totals + i / width * size),
              mixture_at(parts + i * size));
    }
  }
  for (std::int64_t i = 0; i < count; i++)
    finish(kernels_, job, tiles[static_cast<std::size_t>(i)], mixture_at(totals + i * size));
}

void Device::attend_prepared(const char* q, std::ptrdiff_t stride, const Cache& cache, std::int64_t layer,
                             const StepRows& rows, const Attention& w, float* out) {
  if (rows.count() == 0) return;
  const int padded_dim = (w.head_dim + kLanes - 1) / kLanes * kLanes;
  const AttendJob job{cache, layer, rows, w, q, stride, out, w.num_heads / w.num_kv_heads, padded_dim};
  const std::vector<AttendTile> tiles = cut_into_tiles(job);
  std::int64_t splits = 0;
  for (const AttendTile& tile : tiles) splits += tile.last_split(job) - tile.first_split(job) + 1;
  const auto count = static_cast<std::int64_t>(tiles.size());
  if (pool_.threads() > 1 && count < 3 * pool_.threads() && count % pool_.threads() != 0 && splits > 2 * count)
    attend_in_splits(tiles, job);
  else
    attend_whole(tiles, job);
}

void Device::attend(const float* q, const Cache& cache, std::int64_t layer, const StepRows& rows, const Attention& w,
                    float* out) {
  const Turn turn(*this);
  const std::int64_t group = w.num_heads / w.num_kv_heads, heads = rows.count() * w.num_heads;
  const std::ptrdiff_t stride = kernels_.query_bytes(cache.number, w.head_dim);
  char* prepared = queries_.take<char>(heads * stride);
  split(heads, 1, heads * w.head_dim, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; i++) {
      const std::int64_t row = i / w.num_heads, head = i % w.num_heads;
      char* target = prepared + ((head / group * rows.count() + row) * group + head % group) * stride;
      kernels_.prepare_query(cache.number, q + i * w.head_dim, w.head_dim, target);
    }
  });
  attend_prepared(prepared, stride, cache, layer, rows, w, out);
}

void Device::rotate(float* x, std::int64_t heads, std::int64_t head_dim, const StepRows& rows) {
  const Turn turn(*this);
  split(rows.count() * heads, 1, rows.count() * heads * rows.half, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; i++) {
      const std::int64_t angle = i / heads * rows.half;
      kernels_.rotate(x + i * head_dim, rows.cos + angle, rows.sin + angle, rows.half);
    }
  });
}

namespace {

struct Slot {
  char* key_tile;
  char* value_tile;
  int lane;
};

Slot slot_of(const Cache& cache, std::int64_t layer, const StepRows& rows, std::int64_t row, int head) {
  const auto i = static_cast<std::size_t>(row);
  const std::int32_t position = rows.positions[i], slot = position % cache.block_size;
  const std::int32_t block = rows.table(rows.sequence_of[i])[position / cache.block_size];
  return {cache.keys_of(layer, block, head) + slot / kLanes * cache.key_tile(),
          cache.values_of(layer, block, head) + slot / kLanes * cache.value_tile(), slot % kLanes};
}

// Fetches the slots that heads begin .. end - 1 of (rows, q | k | v) will be written to. A token's key lies in as many
// lines as it has pairs, and none of them is in a cache any more: writing would wait for one after the other.
void fetch_slots(const Cache& cache, std::int64_t layer, const StepRows& rows, std::int64_t begin, std::int64_t end,
                 const Attention& w) {
  const std::int64_t heads = w.num_heads + 2 * w.num_kv_heads;
  const std::ptrdiff_t groups = (cache.head_dim + kLanes - 1) / kLanes, lines = cache.value_tile() / kLine / groups;
  for (std::int64_t i = begin; i < end; i++) {
    const int head = static_cast<int>(i % heads) - w.num_heads;
    if (head < 0) continue;
    const Slot slot = slot_of(cache, layer, rows, i / heads, head % w.num_kv_heads);
    if (head < w.num_kv_heads) {
      for (std::ptrdiff_t at = 0; at < cache.key_tile(); at += kLine) __builtin_prefetch(slot.key_tile + at);
    } else {  // of the lines that hold sixteen entries, the one with this token
      for (std::ptrdiff_t line = slot.lane * lines / kLanes; line < groups * lines; line += lines)
        __builtin_prefetch(slot.value_tile + line * kLine);
    }
  }
}

}  // namespace

void Device::write(const Cache& cache, std::int64_t layer, const float* k, const float* v, const StepRows& rows) {
  const Turn turn(*this);
  const std::int64_t heads = rows.count() * cache.kv_heads;
  split(heads, 1, 2 * heads * cache.head_dim, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; i++) {
      const Slot slot = slot_of(cache, layer, rows, i / cache.kv_heads, static_cast<int>(i % cache.kv_heads));
      kernels_.write_key(cache.number, k + i * cache.head_dim, cache.head_dim, slot.key_tile, slot.lane);
      kernels_.write_value(cache.number, v + i * cache.head_dim, cache.head_dim, slot.value_tile, slot.lane);
    }
  });
}

// qkv (rows, q | k | v) of projected rows -> the heads' mixed values (rows, num_heads * head_dim), in inner_. Norms and
// turns q and k in place, and puts k and v into the cache.
const float* Device::attend_projected(float* qkv, const Attention& w, const StepRows& rows, const Cache& cache,
                                      std::int64_t layer) {
  const std::int64_t count = rows.count(), heads = w.num_heads + 2 * w.num_kv_heads;
  const std::int64_t group = w.num_heads / w.num_kv_heads, half = w.rotary_dim / 2;
  const std::ptrdiff_t stride = kernels_.query_bytes(cache.number, w.head_dim);
  char* q = queries_.take<char>(count * w.num_heads * stride);
  split(count * heads, 1, kSlotWork * count * heads * w.head_dim, [&](std::int64_t begin, std::int64_t end, int) {
    if (count <= kFewRows) fetch_slots(cache, layer, rows, begin, end, w);
    for (std::int64_t i = begin; i < end; i++) {
      const std::int64_t row = i / heads;
      const int head = static_cast<int>(i % heads), kv_head = (head - w.num_heads) % w.num_kv_heads;
      float* values = qkv + row * w.qkv.n + head * w.head_dim;
      if (head >= w.num_heads + w.num_kv_heads) {
        const Slot slot = slot_of(cache, layer, rows, row, kv_head);
        kernels_.write_value(cache.number, values, w.head_dim, slot.value_tile, slot.lane);
        continue;
      }
      const bool is_query = head < w.num_heads;
      if (is_query ? w.has_q_norm : w.has_k_norm) norm_row(is_query ? w.q_norm : w.k_norm, values, values);
      if (half) kernels_.rotate(values, rows.cos + row * rows.half, rows.sin + row * rows.half, half);
      if (is_query) {
        char* target = q + ((head / group * count + row) * group + head % group) * stride;
        kernels_.prepare_query(cache.number, values, w.head_dim, target);
      } else {
        const Slot slot = slot_of(cache, layer, rows, row, kv_head);
        kernels_.write_key(cache.number, values, w.head_dim, slot.key_tile, slot.lane);
      }
    }
  });
  float* mixed = inner_.take<float>(count * w.out.k);
  attend_prepared(q, stride, cache, layer, rows, w, mixed);
  return mixed;
}

}  // namespace openwork
