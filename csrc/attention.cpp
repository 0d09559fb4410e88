// Attention over the threads: tiles of queries that share a kv head, whole or cut into splits.
//
//     queries of a kv head, row by row, the rows by prefix:   | row 0: g0 g1 g2 | row 1: g0 g1 g2 | ...
//     cut into tiles of kMaxQueries at most; a tile's splits merge in index order, whoever computed them.
//
//     splits        0     1     2     3           a tile may hold several sequences that begin alike: a split that
//     sequence a  |-----------|-----|-            they read from the same blocks is read once, for all of them; the
//     sequence b  |-----------|-----|---          rest once for each. Which queries are read together changes no bit:
//     sequence c  |-----------|--                 a query's own chain is the same, split after split.
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
  const char* q;  // (kv_heads, rows by prefix, group) prepared heads
  std::ptrdiff_t stride;
  float* out;  // (rows, num_heads * head_dim)
  int group;
  int padded_dim;

  std::int32_t position(std::int64_t row) const { return rows.positions[static_cast<std::size_t>(row)]; }
  std::int32_t lowest(std::int64_t row) const { return w.window == 0 ? 0 : std::max(0, position(row) - w.window + 1); }
};

// Queries first .. first + count - 1 of a kv head: of the sequences at begin .. end - 1 in order of prefixes.
struct AttendTile {
  int head;
  int begin, end;
  std::int64_t first;
  int count;
  std::int64_t first_split, last_split;
  std::int64_t cost;

  std::int64_t row(const AttendJob& job, int query) const {
    return job.rows.row_at[static_cast<std::size_t>((first + query) / job.group)];
  }

  KeysValues keys_values(const AttendJob& job, int sequence) const {
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
    out.q = job.q + (head * job.rows.count() * job.group + first) * job.stride;
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
constexpr std::int64_t kReading = 8;  // what reading a split costs, beside meeting it with one query

// Whole cache lines, kMaxQueries being a multiple of eight.
std::int64_t mixture_bytes(int padded_dim) { return 4 * kMaxQueries * std::int64_t{2 + padded_dim}; }

Mixture mixture_at(char* memory) {
  float* floats = reinterpret_cast<float*>(memory);
  return {floats, floats + kMaxQueries, floats + 2 * kMaxQueries};
}

// Queries begin .. end - 1 of a tile and the keys of a split, which all of them read through one sequence's table.
struct Piece {
  std::int64_t split;
  int sequence;
  int begin, end;
};

// The pieces of a tile from one split on, in order.
class Pieces {
 public:
  Pieces(const AttendJob& job, const AttendTile& tile, const Queries& queries, std::int64_t split)
      : rows_(job.rows), group_(job.group), tile_(tile), queries_(queries), split_(split), at_(tile.begin) {}

  bool next(Piece& out) {
    for (; split_ <= tile_.last_split; split_++, at_ = tile_.begin)
      while (at_ < tile_.end) {
        const int from = at_++;
        while (at_ < tile_.end && rows_.shared[static_cast<std::size_t>(at_)] > split_) at_++;
        if (find(from, out)) return true;
      }
    return false;
  }

 private:
  int query_of(int index) const {
    const std::int64_t place = rows_.first_place[static_cast<std::size_t>(index)];
    return static_cast<int>(std::clamp<std::int64_t>(place * group_ - tile_.first, 0, tile_.count));
  }

  // The queries of from .. at_ - 1 that see a key of the split: a run, because both ends of what a sequence's queries
  // see ascend, and of a split that several share every query sees every key.
  bool find(int from, Piece& out) const {
    int begin = query_of(from);
    const int stop = query_of(at_);
    while (begin < stop && queries_.last[begin] < split_ * kSplit) begin++;
    int end = begin;
    while (end < stop && queries_.first[end] < (split_ + 1) * kSplit) end++;
    out = {split_, rows_.by_prefix[static_cast<std::size_t>(from)], begin, end};
    return begin < end;
  }

  const StepRows& rows_;
  const int group_;
  const AttendTile& tile_;
  const Queries& queries_;
  std::int64_t split_;
  int at_;
};

// The keys of a piece, for whoever is to fetch them in time.
Ahead ahead_of(const KeysValues& kv, const Queries& queries, const Piece& piece) {
  return {&kv, std::max<std::int64_t>(queries.first[piece.begin], piece.split * kSplit),
          std::min<std::int64_t>(queries.last[piece.end - 1], (piece.split + 1) * kSplit - 1)};
}

// The total of each query, and then this piece; a query's first split is its total.
void take_in(const Kernels& kernels, const Queries& queries, const Piece& piece, int padded_dim, const Mixture& total,
             const Mixture& part) {
  for (int i = piece.begin; i < piece.end; i++) {
    if (queries.first[i] / kSplit != piece.split) {
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

// The splits of a tile and what they cost.
void measure(const AttendJob& job, AttendTile& tile) {
  Queries queries;
  tile.queries(job, queries);
  tile.first_split = queries.first[0] / kSplit;
  tile.last_split = *std::max_element(queries.last, queries.last + tile.count) / kSplit;
  tile.cost = (tile.last_split - tile.first_split + 1) * (kReading + tile.count);
  if (tile.end - tile.begin == 1) return;
  tile.cost = 0;
  Pieces pieces(job, tile, queries, tile.first_split);
  for (Piece piece; pieces.next(piece);) tile.cost += kReading + piece.end - piece.begin;
}

// Of one kv head: sequences that begin alike in the same tiles, unless a window keeps them from seeing what they share.
std::vector<AttendTile> cut_head(const AttendJob& job) {
  const StepRows& rows = job.rows;
  std::vector<AttendTile> tiles;
  const int all = rows.sequences();
  const auto begins = [&](int i) { return std::int64_t{job.group} * rows.first_place[static_cast<std::size_t>(i)]; };
  for (int from = 0, to; from < all; from = to) {
    to = from + 1;
    while (to < all && job.w.window == 0 && rows.shared[static_cast<std::size_t>(to)] > 0) to++;
    for (std::int64_t first = begins(from), end = begins(to); first < end; first += kMaxQueries) {
      AttendTile tile{0, from, to, first, static_cast<int>(std::min<std::int64_t>(kMaxQueries, end - first)), 0, 0, 0};
      while (begins(tile.begin + 1) <= first) tile.begin++;
      while (begins(tile.end - 1) >= first + tile.count) tile.end--;
      measure(job, tile);
      tiles.push_back(tile);
    }
  }
  return tiles;
}

std::vector<AttendTile> cut_into_tiles(const AttendJob& job) {
  const std::vector<AttendTile> one = cut_head(job);
  std::vector<AttendTile> tiles;
  tiles.reserve(one.size() * static_cast<std::size_t>(job.w.num_kv_heads));
  // Tiles of a sequence and head follow each other: its keys stay in cache.
  for (std::size_t from = 0, to; from < one.size(); from = to) {
    to = from + 1;
    while (to < one.size() && one[to].begin < one[to - 1].end) to++;
    for (int head = 0; head < job.w.num_kv_heads; head++)
      for (std::size_t i = from; i < to; i++) {
        tiles.push_back(one[i]);
        tiles.back().head = head;
      }
  }
  return tiles;
}

}  // namespace

// Every tile by one worker; the tiles are cut where the keys to be read are halved, or thirded.
void Device::attend_whole(const std::vector<AttendTile>& tiles, const AttendJob& job) {
  std::vector<std::int64_t> cost(tiles.size() + 1);
  for (std::size_t i = 0; i < tiles.size(); i++) cost[i + 1] = cost[i] + tiles[i].cost;
  const std::int64_t scratch = kernels_.scratch_bytes(job.cache.number, job.w.head_dim), all = cost.back();
  const std::int64_t size = scratch + 2 * mixture_bytes(job.padded_dim);
  char* memory = workers_.take<char>(size * pool_.threads());
  split(all, 1, all * kSplit * job.padded_dim / 8, [&](std::int64_t begin, std::int64_t end, int worker) {
    char* own = memory + worker * size;
    const Mixture total = mixture_at(own + scratch), part = mixture_at(own + scratch + mixture_bytes(job.padded_dim));
    Queries queries, after;
    for (std::size_t i = 0; i < tiles.size(); i++) {
      if (cost[i] < begin || cost[i] >= end) continue;
      const AttendTile &tile = tiles[i], &then = tiles[std::min(i + 1, tiles.size() - 1)];
      tile.queries(job, queries);
      then.queries(job, after);
      Pieces pieces(job, tile, queries, tile.first_split);
      Piece piece, next;
      for (bool more = pieces.next(piece); more; piece = next) {
        more = pieces.next(next);
        if (!more) Pieces(job, then, after, then.first_split).next(next);
        const KeysValues kv = tile.keys_values(job, piece.sequence);
        const KeysValues next_kv = (more ? tile : then).keys_values(job, next.sequence);
        const Ahead ahead = ahead_of(next_kv, more ? queries : after, next);
        kernels_.attend(kv, queries, piece.begin, piece.end, piece.split, ahead, own, part);
        take_in(kernels_, queries, piece, job.padded_dim, total, part);
      }
      finish(kernels_, job, tile, total);
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
  for (const AttendTile& tile : tiles) longest = std::max(longest, tile.last_split - tile.first_split + 1);
  for (std::int64_t wave = 0; wave < longest; wave += width) {
    split(count * width, 1, kWorthSharing, [&](std::int64_t begin, std::int64_t end, int worker) {
      Queries queries;
      for (std::int64_t i = begin; i < end; i++) {
        const AttendTile& tile = tiles[static_cast<std::size_t>(i / width)];
        const std::int64_t s = tile.first_split + wave + i % width;
        if (s > tile.last_split) continue;
        tile.queries(job, queries);
        Pieces pieces(job, tile, queries, s);
        Piece piece, next;
        for (bool more = pieces.next(piece); more && piece.split == s; piece = next) {
          more = pieces.next(next);
          const KeysValues kv = tile.keys_values(job, piece.sequence);
          const KeysValues next_kv = tile.keys_values(job, more ? next.sequence : piece.sequence);
          const Ahead ahead = more ? ahead_of(next_kv, queries, next) : Ahead{};
          kernels_.attend(kv, queries, piece.begin, piece.end, s, ahead, memory + worker * scratch,
                          mixture_at(parts + i * size));
        }
      }
    });
    Queries queries;
    for (std::int64_t i = 0; i < count * width; i++) {
      const AttendTile& tile = tiles[static_cast<std::size_t>(i / width)];
      const std::int64_t s = tile.first_split + wave + i % width;
      if (s > tile.last_split) continue;
      tile.queries(job, queries);
      Pieces pieces(job, tile, queries, s);
      for (Piece piece; pieces.next(piece) && piece.split == s;)
        take_in(kernels_, queries, piece, job.padded_dim, mixture_at(totals + i / width * size),
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
  for (const AttendTile& tile : tiles) splits += tile.last_split - tile.first_split + 1;
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
      const std::int64_t head = i % w.num_heads, place = rows.place_of[static_cast<std::size_t>(i / w.num_heads)];
      char* target = prepared + ((head / group * rows.count() + place) * group + head % group) * stride;
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
        const std::int64_t place = rows.place_of[static_cast<std::size_t>(row)];
        char* target = q + ((head / group * count + place) * group + head % group) * stride;
        kernels_.prepare_query(cache.number, values, w.head_dim, target);
      } else {
        const Slot slot = slot_of(cache, layer, rows, row, kv_head);
        kernels_.write_key(cache.number, values, w.head_dim, slot.key_tile, slot.lane);
      }
    }
  });
  stamp(rows, layer, Op::project, qkv, w.qkv.n);
  float* mixed = inner_.take<float>(count * w.out.k);
  attend_prepared(q, stride, cache, layer, rows, w, mixed);
  stamp(rows, layer, Op::attend, mixed, w.out.k);
  return mixed;
}

}  // namespace openwork
