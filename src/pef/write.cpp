// Writes a PEF: metadata in memory, weights in pieces, the header's state last.
#include "pef/write.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"
#include "base/file.h"
#include "pef/codec.h"
#include "pef/format.h"
#include "pef/read.h"

namespace shardwright::pef {
namespace {

constexpr int64_t kPieceBytes = 16 << 20;

std::span<const std::byte> as_span(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// A view that sees one element again and again.
bool is_repeated(const TensorView& view) {
  return view.type.count() > 1 && std::all_of(view.strides.begin(), view.strides.end(),
                                              [](int64_t stride) { return stride == 0; });
}

// Copies elements of a strided view into contiguous memory, row-major, a part at a time.
class RowMajor {
 public:
  explicit RowMajor(const TensorView& view)
      : view_(view),
        size_(dtype_bytes(view.type.dtype)),
        left_(view.type.count()),
        contiguous_(is_contiguous(view.type.shape, view.strides)),
        index_(view.type.shape.size(), 0) {}

  // The next at most `max_bytes` bytes, in `room` or where they lie; empty at the end.
  std::span<const std::byte> next(std::vector<std::byte>& room, int64_t max_bytes) {
    const int64_t count = std::min(left_, max_bytes / size_);
    const int64_t done = view_.type.count() - left_;
    left_ -= count;
    const auto bytes = static_cast<size_t>(count * size_);
    if (contiguous_) return {view_.data + done * size_, bytes};
    if (room.size() < bytes) room.resize(bytes);
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(room.data() + i * size_, view_.data + position_ * size_,
                  static_cast<size_t>(size_));
      advance();
    }
    return {room.data(), bytes};
  }

 private:
  void advance() {
    for (size_t d = index_.size(); d-- > 0;) {
      position_ += view_.strides[d];
      if (++index_[d] < view_.type.shape[d]) return;
      position_ -= view_.strides[d] * index_[d];
      index_[d] = 0;
    }
  }

  TensorView view_;
  int64_t size_;  // bytes of an element
  int64_t left_;  // elements
  bool contiguous_;
  int64_t position_ = 0;  // elements
  Shape index_;
};

class Writer {
 public:
  Writer(const std::string& path, Manifest manifest, const std::vector<TensorView>& views,
         const WriteOptions& options)
      : file_(path), manifest_(std::move(manifest)), views_(views), options_(options) {}

  void write() {
    place_tensors();
    add_segments();
    place_segments();
    file_.reserve(header_.file_bytes);
    for (size_t i = 0; i < segments_.size(); ++i) {
      if (segments_[i].kind == SegmentKind::kWeights)
        write_weights(segments_[i]);
      else
        file_.write_at(segments_[i].offset_bytes, contents_[i]);
    }
    finish();
  }

 private:
  void place_tensors() {
    CHECK(manifest_.tensors.size() == views_.size());
    for (size_t i = 0; i < views_.size(); ++i) {
      Tensor& tensor = manifest_.tensors[i];
      tensor.offset_bytes = -1;
      if (views_[i].data == nullptr && tensor.type.count() > 0) continue;
      CHECK(views_[i].type == tensor.type, tensor.name);
      tensor.repeated = is_repeated(views_[i]);
      tensor.offset_bytes = round_up(weights_bytes_, kTensorAlignBytes);
      weights_bytes_ = tensor.offset_bytes + stored_bytes(tensor);
    }
  }

  SegmentInfo& add(SegmentKind kind, std::string name, std::string content) {
    SegmentInfo& segment = segments_.emplace_back();
    segment.kind = kind;
    segment.name = std::move(name);
    segment.size_bytes = static_cast<int64_t>(content.size());
    segment.crc32 = crc32_of(as_span(content));
    segment.leaves = leaf_digests(as_span(content));
    contents_.push_back(std::move(content));
    return segment;
  }

  void add_segments() {
    add(SegmentKind::kManifest, "manifest.fb", encode_manifest(manifest_));
    for (size_t p = 0; p < manifest_.plans.size(); ++p) {
      const Plan& plan = manifest_.plans[p];
      CHECK(static_cast<int>(plan.chips.size()) == plan.n_chips);
      for (size_t c = 0; c < plan.chips.size(); ++c)
        add_chip(p, c, "plan/" + std::to_string(plan.n_chips) + "/chip/" + std::to_string(c) + "/");
    }
    add(SegmentKind::kReport, "report.json", options_.report_json);
    for (const auto& [name, content] : options_.files)
      add(SegmentKind::kFile, kFilesFolder + name, content);
    add(SegmentKind::kWeights, "weights", {}).size_bytes = weights_bytes_;
  }

  void add_chip(size_t p, size_t c, const std::string& folder) {
    const ChipPlan& chip = manifest_.plans[p].chips[c];
    CHECK(chip.programs.size() == manifest_.graphs.size());
    const auto belongs = [&](SegmentInfo& segment, int graph) {
      segment.plan = static_cast<int>(p);
      segment.chip = static_cast<int>(c);
      segment.graph = graph;
    };
    belongs(add(SegmentKind::kChip, folder + "pieces.fb", encode_chip(chip)), -1);
    for (size_t g = 0; g < chip.programs.size(); ++g)
      belongs(add(SegmentKind::kProgram,
                  folder + "graph/" + manifest_.graphs[g].name.substr(0, kMaxNameBytes / 2) + ".fb",
                  encode_program(chip.programs[g])),
              static_cast<int>(g));
  }

  void place_segments() {
    int64_t end = kHeaderBytes;
    for (SegmentInfo& segment : segments_) {
      segment.offset_bytes = segment_start(end, segment.name);
      segment.leaves.resize(static_cast<size_t>(ceil_div(segment.size_bytes, kLeafBytes)));
      end = segment.end_bytes();
    }
    header_.producer = manifest_.producer;
    header_.required_features = features_of(manifest_) | (options_.files.empty() ? 0 : kFiles);
    header_.index_offset_bytes = round_up(end, kPageBytes);
    // Digests have a fixed size: the index has its final size before they are known.
    header_.index_bytes = static_cast<int64_t>(encode_index(segments_).size());
    const int64_t index_end = header_.index_offset_bytes + header_.index_bytes;
    header_.file_bytes =
        index_end + static_cast<int64_t>(central_directory(segments_, index_end).size());
  }

  void write_weights(SegmentInfo& segment) {
    LeafHasher hasher;
    std::vector<std::byte> room;
    int64_t position = 0;
    const auto put = [&](std::span<const std::byte> bytes) {
      file_.write_at(segment.offset_bytes + position, bytes);
      hasher.add(bytes);
      segment.crc32 = crc32_of(bytes, segment.crc32);
      position += static_cast<int64_t>(bytes.size());
      if (options_.progress) options_.progress(position, weights_bytes_);
    };
    for (size_t i = 0; i < views_.size(); ++i) {
      if (manifest_.tensors[i].offset_bytes < 0) continue;
      const std::string zeros(static_cast<size_t>(manifest_.tensors[i].offset_bytes - position),
                              '\0');
      if (!zeros.empty()) put(as_span(zeros));
      RowMajor elements(manifest_.tensors[i].repeated
                            ? TensorView{{views_[i].type.dtype, {}}, {}, views_[i].data}
                            : views_[i]);
      for (auto piece = elements.next(room, kPieceBytes); !piece.empty();
           piece = elements.next(room, kPieceBytes))
        put(piece);
    }
    CHECK(position == weights_bytes_);
    segment.leaves = hasher.finish();
  }

  // Everything around the segments; the header says "complete" when all else is on the disk.
  void finish() {
    int64_t end = kHeaderBytes;
    for (const SegmentInfo& segment : segments_) {
      file_.write_at(end, gap_before(end, segment));
      end = segment.end_bytes();
    }
    file_.write_at(end, std::string(static_cast<size_t>(header_.index_offset_bytes - end), '\0'));
    const std::string index = encode_index(segments_);
    CHECK(static_cast<int64_t>(index.size()) == header_.index_bytes);
    header_.index_digest = sha256(as_span(index));
    file_.write_at(header_.index_offset_bytes, index);
    const int64_t index_end = header_.index_offset_bytes + header_.index_bytes;
    file_.write_at(index_end, central_directory(segments_, index_end));

    const std::string header = encode_header(header_);
    std::string incomplete = header;
    incomplete[kStateOffset] = 0;
    file_.write_at(0, incomplete);
    file_.sync();
    file_.write_at(0, header);
    file_.commit();
  }

  AtomicFile file_;
  Manifest manifest_;
  const std::vector<TensorView>& views_;
  const WriteOptions& options_;
  int64_t weights_bytes_ = 0;
  std::vector<SegmentInfo> segments_;
  std::vector<std::string> contents_;  // of each segment but weights
  Header header_;
};

}  // namespace

void write(const std::string& path, Manifest manifest, const std::vector<TensorView>& views,
           const WriteOptions& options) {
  try {
    check_manifest(manifest);
  } catch (const Error& error) {
    CHECK(false, std::string("a plan that no reader would take: ") + error.what());
  }
  Writer(path, std::move(manifest), views, options).write();
}

}  // namespace shardwright::pef
