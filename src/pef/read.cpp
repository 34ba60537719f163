// Reads a PEF: every byte outside the weights is accounted for before anything is believed.
#include "pef/read.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <atomic>
#include <cstring>

#include "base/check.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "pef/codec.h"
#include "pef/format.h"

namespace shardwright::pef {
namespace {

[[noreturn]] void broken(const std::string& message) {
  throw Error(ErrorCode::kBrokenFile, message);
}

bool is_wanted(const Plan& plan, int n_chips) {
  return n_chips == kAllPlans || plan.n_chips == n_chips;
}

enum LeafState : uint8_t { kUnknown, kBeingHashed, kGood, kBad };

}  // namespace

struct File::State {
  std::shared_ptr<const MappedFile> mapped;
  std::vector<SegmentInfo> segments;
  const SegmentInfo* weights = nullptr;
  mutable std::vector<std::atomic<uint8_t>> leaf_states;  // of weights; LeafState

  std::span<const std::byte> bytes(int64_t offset_bytes, int64_t size_bytes) const {
    return mapped->bytes().subspan(static_cast<size_t>(offset_bytes),
                                   static_cast<size_t>(size_bytes));
  }
  std::span<const std::byte> bytes(const SegmentInfo& segment) const {
    return bytes(segment.offset_bytes, segment.size_bytes);
  }

  bool leaf_is_good(const SegmentInfo& segment, size_t leaf) const {
    const auto begin = leaf * static_cast<size_t>(kLeafBytes);
    const auto all = bytes(segment);
    const size_t size = std::min(static_cast<size_t>(kLeafBytes), all.size() - begin);
    return sha256(all.subspan(begin, size)) == segment.leaves[leaf];
  }

  // Hashes a leaf of the weights that nobody has hashed, or waits for who does.
  bool touch_leaf(size_t leaf) const {
    std::atomic<uint8_t>& state = leaf_states[leaf];
    uint8_t seen = kUnknown;
    if (state.compare_exchange_strong(seen, kBeingHashed)) {
      seen = leaf_is_good(*weights, leaf) ? kGood : kBad;
      state.store(seen);
      state.notify_all();
    }
    while (seen == kBeingHashed) {
      state.wait(kBeingHashed);
      seen = state.load();
    }
    return seen == kGood;
  }

  // Throws Error(kBrokenFile) unless the bytes at `offset_bytes` are `expected`.
  void expect(int64_t offset_bytes, const std::string& expected, const std::string& what) const {
    const auto size = static_cast<int64_t>(expected.size());
    if (offset_bytes + size > mapped->size() ||
        std::memcmp(bytes(offset_bytes, size).data(), expected.data(), expected.size()) != 0)
      broken("damaged: " + what + " differs from what the index says");
  }
};

File::File() : state_(std::make_unique<State>()) {}
File::~File() = default;

std::shared_ptr<File> File::open(const std::string& path, int n_chips) {
  std::shared_ptr<File> file(new File);
  file->path_ = path;
  State& state = *file->state_;
  state.mapped = MappedFile::open(path);
  file->size_bytes_ = state.mapped->size();
  const Header header = decode_header(state.mapped->bytes(), path);
  try {
    const auto index = state.bytes(header.index_offset_bytes, header.index_bytes);
    if (sha256(index) != header.index_digest) broken("damaged: its index has another digest");
    for (const std::byte byte : header.index_digest)
      file->digest_ += fmt::format("{:02x}", static_cast<unsigned>(byte));
    state.segments = decode_index(index, header.index_offset_bytes);
    int64_t end = kHeaderBytes;
    for (const SegmentInfo& segment : state.segments) {
      state.expect(end, gap_before(end, segment), "what lies before " + segment.name);
      end = segment.end_bytes();
    }
    state.expect(end, std::string(static_cast<size_t>(header.index_offset_bytes - end), '\0'),
                 "what lies before the index");
    const int64_t index_end = header.index_offset_bytes + header.index_bytes;
    const std::string directory = central_directory(state.segments, index_end);
    if (header.file_bytes != index_end + static_cast<int64_t>(directory.size()))
      broken("damaged: it does not end with its ZIP directory");
    state.expect(index_end, directory, "the ZIP directory");
    file->read_metadata(n_chips);
    if ((features_of(file->manifest_) & ~header.required_features) != 0)
      broken("damaged: it has fused steps, but its header does not say so");
    check_manifest(file->manifest_);
  } catch (const Error& error) {
    throw error.within(path);
  }
  return file;
}

// Decodes the segments: manifest first, then each chip's pieces followed by its programs.
void File::read_metadata(int n_chips) {
  State& state = *state_;
  if (state.segments.empty() || state.segments[0].kind != SegmentKind::kManifest)
    broken("damaged: it has no manifest");
  for (const SegmentInfo& segment : state.segments) {
    if (segment.kind == SegmentKind::kWeights) continue;
    for (size_t leaf = 0; leaf < segment.leaves.size(); ++leaf)
      if (!state.leaf_is_good(segment, leaf))
        broken("damaged: " + segment.name + " has another digest than the index says");
  }
  manifest_ = decode_manifest(state.bytes(state.segments[0]), state.segments[0].name);
  if (n_chips > 0) {
    std::string known;
    bool found = false;
    for (const Plan& plan : manifest_.plans) {
      known += (known.empty() ? "" : ", ") + std::to_string(plan.n_chips);
      found |= plan.n_chips == n_chips;
    }
    if (!found)
      throw Error(ErrorCode::kUsage,
                  fmt::format("it has no plan for {} chips; it has plans for {}", n_chips, known));
  }
  if (n_chips == kFirstPlan && !manifest_.plans.empty()) n_chips = manifest_.plans[0].n_chips;
  for (const SegmentInfo& segment : state.segments) read_segment(segment, n_chips);
  if (state.weights == nullptr) broken("damaged: it has no weights segment");
  state.leaf_states = std::vector<std::atomic<uint8_t>>(state.weights->leaves.size());
  for (const Plan& plan : manifest_.plans)
    if (is_wanted(plan, n_chips) && static_cast<int>(plan.chips.size()) != plan.n_chips)
      broken(fmt::format("damaged: the plan for {} chips has {} chips", plan.n_chips,
                         plan.chips.size()));
  for (const Tensor& tensor : manifest_.tensors)
    if (tensor.offset_bytes != -1 &&
        (tensor.offset_bytes < 0 || tensor.offset_bytes % kTensorAlignBytes != 0 ||
         !range_fits(static_cast<uint64_t>(tensor.offset_bytes),
                     static_cast<uint64_t>(stored_bytes(tensor)),
                     static_cast<uint64_t>(state.weights->size_bytes))))
      broken("damaged: tensor " + tensor.name + " lies outside the weights");
}

void File::read_segment(const SegmentInfo& segment, int n_chips) {
  const auto bytes = state_->bytes(segment);
  const auto misplaced = [&] { broken("damaged: segment " + segment.name + " is out of place"); };
  switch (segment.kind) {
    case SegmentKind::kManifest:
      if (&segment != &state_->segments[0]) misplaced();
      return;
    case SegmentKind::kReport:
      report_json_.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return;
    case SegmentKind::kFile:
      if (!segment.name.starts_with(kFilesFolder)) misplaced();
      files_.push_back(segment.name.substr(std::string_view(kFilesFolder).size()));
      return;
    case SegmentKind::kWeights:
      if (state_->weights != nullptr) misplaced();
      state_->weights = &segment;
      return;
    case SegmentKind::kChip:
    case SegmentKind::kProgram:
      break;
  }
  if (segment.plan < 0 || static_cast<size_t>(segment.plan) >= manifest_.plans.size()) misplaced();
  Plan& plan = manifest_.plans[static_cast<size_t>(segment.plan)];
  if (!is_wanted(plan, n_chips)) return;
  if (segment.kind == SegmentKind::kChip) {
    if (segment.chip != static_cast<int>(plan.chips.size())) misplaced();
    plan.chips.push_back(decode_chip(bytes, segment.name));
    return;
  }
  if (plan.chips.empty() || segment.chip != static_cast<int>(plan.chips.size()) - 1 ||
      segment.graph != static_cast<int>(plan.chips.back().programs.size()))
    misplaced();
  plan.chips.back().programs.push_back(decode_program(bytes, segment.name));
}

TensorView File::tensor(int index, bool verify) const {
  CHECK(index >= 0 && static_cast<size_t>(index) < manifest_.tensors.size());
  const Tensor& tensor = manifest_.tensors[static_cast<size_t>(index)];
  if (tensor.offset_bytes < 0)
    throw Error(ErrorCode::kUsage, path_ + " was written without weights: " + tensor.name +
                                       " has no bytes. Compile it again with the weights");
  const int64_t size = stored_bytes(tensor);
  if (verify) this->verify(index, 0, size);
  return {tensor.type,
          tensor.repeated ? Strides(tensor.type.shape.size(), 0)
                          : contiguous_strides(tensor.type.shape),
          state_->bytes(state_->weights->offset_bytes + tensor.offset_bytes, size).data()};
}

void File::verify(int index, int64_t offset_bytes, int64_t size_bytes) const {
  const Tensor& tensor = manifest_.tensors[static_cast<size_t>(index)];
  CHECK(tensor.offset_bytes >= 0 && offset_bytes >= 0 &&
        offset_bytes + size_bytes <= stored_bytes(tensor));
  const int64_t begin = tensor.offset_bytes + offset_bytes;
  for (int64_t leaf = begin / kLeafBytes; leaf * kLeafBytes < begin + size_bytes; ++leaf)
    if (!state_->touch_leaf(static_cast<size_t>(leaf)))
      broken(
          fmt::format("{}: damaged: the weights around {} (bytes {} to {} of the file) have "
                      "another digest than the index says",
                      path_, tensor.name, state_->weights->offset_bytes + leaf * kLeafBytes,
                      std::min(state_->weights->offset_bytes + (leaf + 1) * kLeafBytes,
                               state_->weights->end_bytes())));
}

void File::verify_deep() const {
  for (size_t leaf = 0; leaf < state_->weights->leaves.size(); ++leaf)
    if (!state_->touch_leaf(leaf))
      broken(
          fmt::format("{}: damaged: MiB {} of the weights has another digest than the index "
                      "says",
                      path_, leaf));
}

void File::forget(const std::byte* data, int64_t size) const { state_->mapped->forget(data, size); }

std::string_view File::file(const std::string& name) const {
  for (const SegmentInfo& segment : state_->segments)
    if (segment.kind == SegmentKind::kFile && segment.name == kFilesFolder + name) {
      const auto bytes = state_->bytes(segment);
      return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
  throw Error(ErrorCode::kUsage,
              fmt::format("{} holds no file '{}'; it holds {}", path_, name,
                          files_.empty() ? "none" : fmt::format("{}", fmt::join(files_, ", "))));
}

std::vector<File::Segment> File::segments() const {
  std::vector<Segment> result;
  for (const SegmentInfo& segment : state_->segments)
    result.push_back({segment.name, segment.offset_bytes, segment.size_bytes});
  return result;
}

}  // namespace shardwright::pef
